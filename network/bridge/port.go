package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/netif"
	"github.com/duplex-run/duplex/network/proxy"
)

// Port is an interface on the bridge, of a container or a microVM.
type Port struct {
	// Config is what the other end is to be set up with.
	Config netif.Config

	name      string
	claim     *os.File
	tasks     *proxy.Tasks
	publisher proxy.Publisher
	resolver  proxy.Resolver
	dns       proxy.Slots
}

const (
	maxTCP, maxUDP = 512, 256 // as a user-mode network has
	maxDNS         = 64
)

// Join makes a veth pair: one end on the bridge, the other in the network namespace
// of process pid, by that name, not up yet.
func Join(pid int, device string) (*Port, error) {
	p, err := join(func(p *Port, master netlink.Link) error {
		veth := netlink.NewVeth(p.attrs(master))
		veth.PeerName, veth.PeerNamespace = device, netlink.NsPid(pid)
		veth.PeerHardwareAddr = hardwareAddr(p.Config.Addresses[0].Addr())
		if err := netlink.LinkAdd(veth); err != nil {
			return &Error{Op: "make a veth pair", Err: err, Module: "veth"}
		}
		return nil
	})
	return p, err
}

// JoinTAP makes a TAP device on the bridge that goes with its descriptor.
func JoinTAP() (*Port, *os.File, error) {
	var f *os.File
	p, err := join(func(p *Port, master netlink.Link) (err error) {
		if f, err = makeTAP(p.name); err != nil {
			return err
		}
		link, err := netlink.LinkByName(p.name)
		if err == nil {
			err = netlink.LinkSetMaster(link, master)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("put the TAP device %s on the bridge: %w", p.name, err), f.Close())
		}
		return nil
	})
	return p, f, err
}

func makeTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{Op: "open /dev/net/tun", Err: err, Module: "tun"}
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the TAP device %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (p *Port) attrs(master netlink.Link) netlink.LinkAttrs {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = p.name, master.Attrs().Index
	return attrs
}

// join takes an address and has plug make its interface.
func join(plug func(p *Port, master netlink.Link) error) (*Port, error) {
	if err := mayAdminister(); err != nil {
		return nil, err
	}
	unlock, err := lock()
	if err != nil {
		return nil, fmt.Errorf("lock the bridge: %w", err)
	}
	defer unlock()
	if err := sweep(); err != nil {
		return nil, err
	}
	p, err := joinLocked(plug)
	if err != nil {
		return nil, errors.Join(err, removeIfIdle())
	}
	return p, nil
}

func joinLocked(plug func(p *Port, master netlink.Link) error) (*Port, error) {
	master, own, err := ensure()
	if err != nil {
		return nil, err
	}
	tasks := proxy.NewTasks()
	p := &Port{tasks: tasks, resolver: proxy.Resolver{Tasks: tasks}, dns: make(proxy.Slots, maxDNS),
		publisher: proxy.Publisher{Tasks: tasks, TCP: make(proxy.Slots, maxTCP), UDP: make(proxy.Slots, maxUDP)}}
	if err := p.allot(own); err != nil {
		return nil, err
	}
	if err := plug(p, master); err != nil {
		return nil, errors.Join(err, release(p.claim))
	}
	link, err := netlink.LinkByName(p.name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err == nil {
		err = p.serveDNS()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bring %s up: %w", p.name, err), p.closeLocked())
	}
	return p, nil
}

// allot takes the first free address of the bridge's network.
func (p *Port) allot(own netip.Prefix) error {
	for n := uint32(2); n < 2+maxPorts; n++ {
		a := nth(own, n)
		p.name = linkName(a)
		if _, err := netlink.LinkByName(p.name); err == nil {
			continue // its namespace is about to go
		}
		f, err := claim(p.name)
		if err != nil {
			return fmt.Errorf("take the address %s: %w", a, err)
		}
		if f != nil {
			p.claim = f
			p.Config = netif.Config{MAC: hardwareAddr(a).String(), Addresses: []netip.Prefix{netip.PrefixFrom(a, own.Bits())},
				Gateways: []netip.Addr{own.Addr()}, DNS: []netip.Addr{own.Addr()}}
			return nil
		}
	}
	return fmt.Errorf("the bridge %s has %d interfaces: no more fit", Name, maxPorts)
}

// Publish listens on the host for a port of the other end, which sees connections
// come from the gateway. Errors are *proxy.PublishError.
func (p *Port) Publish(port proxy.Port) (netip.AddrPort, error) {
	guest := netip.AddrPortFrom(p.Config.Addresses[0].Addr(), port.Guest)
	return p.publisher.Publish(port, proxy.Target{
		TCP: func(host *net.TCPConn) { p.enter(host, guest) },
		UDP: func() (net.Conn, error) { return net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(guest)) },
	})
}

// PublishPort is Publish for a port in the notation of proxy.ParsePort.
func (p *Port) PublishPort(text string) error { return proxy.PublishText(text, p.Publish) }

// Plan is Config, for whoever has no use of the package.
func (p *Port) Plan() netif.Config { return p.Config }

// enter carries a connection of the host to the other end.
func (p *Port) enter(host *net.TCPConn, to netip.AddrPort) {
	var d net.Dialer
	c, err := d.DialContext(p.tasks.Context(), "tcp4", to.String())
	if err != nil {
		proxy.Reset(host)
		return
	}
	guest := c.(*net.TCPConn)
	if !p.tasks.Keep(guest) {
		return
	}
	defer p.tasks.Forget(guest)
	proxy.Relay(guest, host, func() {
		proxy.Reset(host)
		proxy.Reset(guest)
	})
}

// serveDNS answers queries to the gateway. Every port of the bridge does, at one
// address (SO_REUSEPORT): whichever the kernel picks. Where a server of the host
// has the port of all addresses, that answers.
func (p *Port) serveDNS() error {
	at := netip.AddrPortFrom(p.Config.Gateways[0], proxy.DNSPort).String()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	udp, err := lc.ListenPacket(context.Background(), "udp4", at)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil
	}
	if err != nil {
		return err
	}
	p.tasks.Spawn(func() { p.resolver.ServePackets(udp.(*net.UDPConn), p.dns) }, udp)
	tcp, err := lc.Listen(context.Background(), "tcp4", at)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil
	}
	if err != nil {
		return err
	}
	p.tasks.Spawn(func() { p.resolver.ServeStreams(tcp, p.dns) }, tcp)
	return nil
}

// Close removes the interface, and the bridge with the last one.
func (p *Port) Close() error {
	p.tasks.Stop(nil)
	unlock, err := lock()
	if err != nil {
		return fmt.Errorf("lock the bridge: %w", err)
	}
	defer unlock()
	err = errors.Join(p.closeLocked(), removeIfIdle())
	p.tasks.Wait()
	return err
}

func (p *Port) closeLocked() error {
	p.tasks.Stop(nil)
	return errors.Join(removeLink(p.name), release(p.claim))
}

func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err == nil || errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENODEV) {
		return nil // also when its namespace took it along
	}
	return fmt.Errorf("remove %s: %w", name, err)
}
