package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/network/bridge/state"
)

// Name is the bridge's.
const Name = "duplex0"

const (
	forwardFile = "/proc/sys/net/ipv4/ip_forward"
	// aliasPrefix, on the bridge, is followed by what forwardFile held before.
	aliasPrefix = "duplex: ip_forward was "
)

// ensure makes what is missing of the bridge and returns it with its address. The
// caller holds the lock.
func ensure() (netlink.Link, netip.Prefix, error) {
	link, err := netlink.LinkByName(Name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		link, err = makeBridge()
	}
	if err != nil {
		return nil, netip.Prefix{}, err
	}
	if link.Type() != "bridge" {
		return nil, netip.Prefix{}, fmt.Errorf("the interface %s is a %s and not ours", Name, link.Type())
	}
	own, whole, err := addressOf(link)
	if err != nil || whole {
		return link, own, err
	}
	// Nothing yet, or left half made by a run that was killed.
	if !own.IsValid() {
		if own, err = giveAddress(link); err != nil {
			return nil, own, err
		}
	}
	if err := addRules(own); err != nil {
		return nil, own, err
	}
	if err := forwardOn(link); err != nil {
		return nil, own, err
	}
	return link, own, netlink.LinkSetUp(link) // last: it says that all is made
}

func makeBridge() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = Name
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, &Error{Op: "make the bridge " + Name, Err: err, Module: "bridge"}
	}
	return netlink.LinkByName(Name)
}

// addressOf is the bridge's address, and whether the bridge is up, and so whole.
func addressOf(link netlink.Link) (own netip.Prefix, whole bool, err error) {
	list, err := netlink.AddrList(link, unix.AF_INET)
	if err != nil || len(list) == 0 {
		return own, false, err
	}
	a, _ := netip.AddrFromSlice(list[0].IP.To4())
	bits, _ := list[0].Mask.Size()
	own = netip.PrefixFrom(a, bits)
	if bits != networkBits {
		return own, false, fmt.Errorf("the interface %s has the address %s and is not ours", Name, own)
	}
	return own, link.Attrs().Flags&net.FlagUp != 0, nil
}

// giveAddress chooses a network and gives the bridge its first address. The
// hardware address is fixed: else it would change with the ports.
func giveAddress(link netlink.Link) (netip.Prefix, error) {
	used, err := routes()
	if err != nil {
		return netip.Prefix{}, err
	}
	network, err := choose(used)
	if err != nil {
		return network, err
	}
	own := nth(network, 1)
	if err := netlink.LinkSetHardwareAddr(link, hardwareAddr(own)); err != nil {
		return network, fmt.Errorf("set the hardware address of %s: %w", Name, err)
	}
	p := netip.PrefixFrom(own, networkBits)
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: own.AsSlice(), Mask: net.CIDRMask(networkBits, 32)}}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return p, fmt.Errorf("give %s the address %s: %w", Name, p, err)
	}
	return p, nil
}

// routes are the networks that the host has routes to.
func routes() (list []netip.Prefix, err error) {
	all, err := netlink.RouteList(nil, unix.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("list the routes: %w", err)
	}
	for _, r := range all {
		if r.Dst == nil {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		if bits, _ := r.Dst.Mask.Size(); ok {
			list = append(list, netip.PrefixFrom(a, bits))
		}
	}
	return list, nil
}

// forwardOn turns forwarding on, having noted on the bridge how it was.
func forwardOn(link netlink.Link) error {
	before, err := os.ReadFile(forwardFile)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(link.Attrs().Alias, aliasPrefix) {
		if err := netlink.LinkSetAlias(link, aliasPrefix+strings.TrimSpace(string(before))); err != nil {
			return fmt.Errorf("note on %s how forwarding was: %w", Name, err)
		}
	}
	if err := os.WriteFile(forwardFile, []byte("1"), 0); err != nil {
		return fmt.Errorf("turn forwarding on: %w", err)
	}
	return nil
}

// removeIfIdle undoes ensure when nobody has a claim. The caller holds the lock.
func removeIfIdle() error {
	names, err := state.Claims()
	if err != nil || len(names) > 0 {
		return err
	}
	link, err := netlink.LinkByName(Name)
	if err == nil {
		err = remove(link)
	} else if errors.As(err, new(netlink.LinkNotFoundError)) {
		err = nil
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(state.Dir)
}

func remove(link netlink.Link) error {
	if err := delRules(); err != nil {
		return err
	}
	if before, noted := strings.CutPrefix(link.Attrs().Alias, aliasPrefix); noted && before == "0" {
		if err := os.WriteFile(forwardFile, []byte(before), 0); err != nil {
			return fmt.Errorf("turn forwarding off again: %w", err)
		}
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove the bridge %s: %w", Name, err)
	}
	return nil
}
