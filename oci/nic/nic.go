package nic

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/oci/machine"
)

// tapName is the device in the namespace, of which each has one machine.
const tapName = "duplex0"

// Connect connects to the one interface with an address that this thread's network
// namespace has beside loopback. Without one it returns nil. Routes that a guest
// would not have are told to warn.
func Connect(warn func(string)) (*machine.Interface, error) {
	link, err := find()
	if err != nil || link == nil {
		return nil, err
	}
	i := &machine.Interface{Name: link.Attrs().Name, MAC: link.Attrs().HardwareAddr, MTU: link.Attrs().MTU}
	if err := read(i, link, warn); err != nil {
		return nil, fmt.Errorf("read the addresses of %s: %w", i.Name, err)
	}
	if err := connect(i, link); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", i.Name, err)
	}
	return i, nil
}

// find is the interface, nil for none.
func find() (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	var found netlink.Link
	for _, l := range links {
		a := l.Attrs()
		if a.Name == tapName {
			return nil, errors.New("another machine has the interface of this network namespace already: only one can")
		}
		if a.Flags&net.FlagLoopback != 0 || a.Flags&net.FlagUp == 0 || len(a.HardwareAddr) != 6 {
			continue
		}
		addresses, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list the addresses of %s: %w", a.Name, err)
		}
		if len(global(addresses)) == 0 {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("the network namespace has several interfaces with addresses (%s, %s): a microVM has one", found.Attrs().Name, a.Name)
		}
		found = l
	}
	return found, nil
}

// global are the addresses that the guest does not give itself.
func global(list []netlink.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || a.Scope == unix.RT_SCOPE_LINK {
			continue
		}
		bits, _ := a.Mask.Size()
		out = append(out, netip.PrefixFrom(ip.Unmap(), bits))
	}
	return out
}

// read fills in addresses and gateways.
func read(i *machine.Interface, link netlink.Link, warn func(string)) error {
	addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	i.Addresses = global(addresses)
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(link, family)
		if err != nil {
			return err
		}
		got := false
		for _, r := range routes {
			gateway, ok := netip.AddrFromSlice(r.Gw)
			switch {
			case !ok: // on the link: it comes with the address
			case defaultRoute(r) && !got:
				i.Gateways, got = append(i.Gateways, gateway.Unmap()), true
			default:
				warn(fmt.Sprintf("the route to %v by %v is not in the microVM: it has default routes only", r.Dst, r.Gw))
			}
		}
	}
	return nil
}

func defaultRoute(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

// connect makes the TAP device and the filters.
func connect(i *machine.Interface, link netlink.Link) error {
	var err error
	if i.Tap, err = openTap(); err != nil {
		return err
	}
	tap, err := netlink.LinkByName(tapName)
	if err == nil {
		err = netlink.LinkSetMTU(tap, i.MTU)
	}
	if err == nil {
		err = netlink.LinkSetUp(tap)
	}
	if err == nil {
		err = errors.Join(redirect(link, tap), redirect(tap, link))
	}
	if err != nil {
		return errors.Join(err, i.Tap.Close(), unhook(link))
	}
	return nil
}

// openTap makes the device; it ends with the descriptor.
func openTap() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(tapName)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a TAP device: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), tapName), nil
}

// redirect sends everything that comes in at from out of to.
func redirect(from, to netlink.Link) error {
	index := from.Attrs().Index
	if err := unhook(from); err != nil {
		return err
	}
	qdisc := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_INGRESS, Handle: netlink.MakeHandle(0xffff, 0)}}
	if err := netlink.QdiscAdd(qdisc); err != nil {
		return fmt.Errorf("add an ingress qdisc to %s: %w (Linux module sch_ingress)", from.Attrs().Name, err)
	}
	filter := &netlink.MatchAll{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.MakeHandle(0xffff, 0), Priority: 1, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{netlink.NewMirredAction(to.Attrs().Index)},
	}
	if err := netlink.FilterAdd(filter); err != nil {
		return fmt.Errorf("redirect from %s: %w (Linux modules cls_matchall, act_mirred)", from.Attrs().Name, err)
	}
	return nil
}

// unhook takes away what redirect made.
func unhook(link netlink.Link) error {
	qdiscs, err := netlink.QdiscList(link)
	if err != nil {
		return err
	}
	for _, q := range qdiscs {
		if q.Attrs().Parent == netlink.HANDLE_INGRESS && ours(link) {
			if err := netlink.QdiscDel(q); err != nil {
				return fmt.Errorf("remove the ingress qdisc of %s: %w", link.Attrs().Name, err)
			}
		}
	}
	return nil
}

// ours says whether the filters of the ingress qdisc are those of redirect.
func ours(link netlink.Link) bool {
	filters, err := netlink.FilterList(link, netlink.MakeHandle(0xffff, 0))
	for _, f := range filters {
		if _, ok := f.(*netlink.MatchAll); !ok {
			return false
		}
	}
	return err == nil
}

// Disconnect undoes Connect in this thread's network namespace, when the machine
// has gone. It is idempotent.
func Disconnect() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		if l.Attrs().Flags&net.FlagLoopback == 0 && l.Attrs().Name != tapName {
			errs = append(errs, unhook(l))
		}
	}
	return errors.Join(errs...)
}
