package user

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/duplex-run/duplex/network/proxy"
)

const (
	nic = 1
	// tcpBuffer is what a connection may hold in each direction, in bytes. The
	// guest is microseconds away, so a small window is enough.
	tcpBuffer = 128 << 10
	// halfOpen bounds the connections that the guest is making at one moment.
	halfOpen = 128
	// dialTime bounds how long a connection of the guest is tried.
	dialTime = 30 * time.Second
)

// Stack is a user-mode network for one guest.
type Stack struct {
	cfg  Config
	ip   *stack.Stack
	link *link

	tasks     *proxy.Tasks
	publisher proxy.Publisher // its bounds are those of both directions
	resolver  proxy.Resolver
	half      proxy.Slots // connections that the guest is making
	dns       proxy.Slots
}

// quiet keeps netstack from writing to stderr about what a guest sends.
var quiet = sync.OnceFunc(func() {
	log.SetLevel(log.Warning) // for the loggers that keep the old target
	log.SetTarget(&log.Writer{Next: io.Discard})
})

// New makes a network. Without a guest (Serve, Connect) it does nothing.
func New(cfg Config) (*Stack, error) {
	if err := cfg.Complete(); err != nil {
		return nil, err
	}
	quiet()
	tasks := proxy.NewTasks()
	s := &Stack{cfg: cfg, tasks: tasks, half: make(proxy.Slots, halfOpen), dns: make(proxy.Slots, cfg.MaxDNS),
		publisher: proxy.Publisher{Tasks: tasks, TCP: make(proxy.Slots, cfg.MaxTCP), UDP: make(proxy.Slots, cfg.MaxUDP)},
		resolver:  proxy.Resolver{Tasks: tasks, Fixed: cfg.Resolvers}}
	s.link = &link{mac: gatewayMAC, mtu: cfg.MTU,
		own: []tcpip.Address{tcpip.AddrFrom4(cfg.Gateway.As4()), tcpip.AddrFrom4(cfg.DNS.As4())}}
	s.ip = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	if err := s.configure(); err != nil {
		s.ip.Destroy()
		return nil, fmt.Errorf("user network: %w", err)
	}
	forward := tcp.NewForwarder(s.ip, tcpBuffer, halfOpen, s.acceptTCP)
	s.ip.SetTransportProtocolHandler(tcp.ProtocolNumber, forward.HandlePacket)
	s.ip.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(s.ip, s.acceptUDP).HandlePacket)
	return s, nil
}

// configure sets up the interface: it takes packets for any address, and sends
// from any.
func (s *Stack) configure() error {
	var errs []tcpip.Error
	add := func(err tcpip.Error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	sack := tcpip.TCPSACKEnabled(true)
	add(s.ip.SetTransportProtocolOption(tcp.ProtocolNumber, &sack))
	add(s.ip.SetTransportProtocolOption(tcp.ProtocolNumber,
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: tcpBuffer, Max: tcpBuffer}))
	add(s.ip.SetTransportProtocolOption(tcp.ProtocolNumber,
		&tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: tcpBuffer, Max: tcpBuffer}))
	add(s.ip.CreateNIC(nic, ethernet.New(s.link)))
	add(s.ip.SetPromiscuousMode(nic, true))
	add(s.ip.SetSpoofing(nic, true))
	for _, a := range []netip.Addr{s.cfg.Gateway, s.cfg.DNS} {
		add(s.ip.AddProtocolAddress(nic, tcpip.ProtocolAddress{
			Protocol: ipv4.ProtocolNumber,
			AddressWithPrefix: tcpip.AddressWithPrefix{
				Address: tcpip.AddrFrom4(a.As4()), PrefixLen: s.cfg.Guest.Bits()},
		}, stack.AddressProperties{}))
	}
	s.ip.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	if len(errs) > 0 {
		return errors.New(errs[0].String())
	}
	return nil
}

// Config is the configuration with its defaults filled in.
func (s *Stack) Config() Config { return s.cfg }

// Connect returns the device's end of a new socket pair and serves the other.
func (s *Stack) Connect() (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("user network: %w", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "user network"), os.NewFile(uintptr(fds[1]), "user network")
	if err := s.begin(near, func() { _ = s.serve(near) }); err != nil {
		_ = far.Close()
		return nil, err
	}
	return far, nil
}

// Serve takes over f, a Unix socket that keeps messages apart, and carries the
// packets of the device on its other end. It returns nil when that end or the
// Stack is closed. A Stack has one guest at a time.
func (s *Stack) Serve(f *os.File) error {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("user network: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("user network: %w", err)
	}
	own := os.NewFile(uintptr(fd), "user network")
	done := make(chan error, 1)
	if err := s.begin(own, func() { done <- s.serve(own) }); err != nil {
		return err
	}
	return <-done
}

// begin attaches f and runs serve; f is closed on error.
func (s *Stack) begin(f *os.File, serve func()) error {
	if !s.link.attachFile(f) {
		_ = f.Close()
		return errors.New("user network: there is a guest already")
	}
	if !s.tasks.Spawn(serve, f) {
		s.link.detachFile(f)
		return net.ErrClosed
	}
	return nil
}

func (s *Stack) serve(f *os.File) error {
	defer s.tasks.Forget(f)
	defer s.link.detachFile(f)
	err := s.link.serve(f)
	if err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}

// Close ends all connections and releases everything; it returns when nothing
// of the Stack runs any more. It is idempotent.
func (s *Stack) Close() error {
	s.tasks.Stop(func(c io.Closer) {
		if f, ok := c.(*os.File); ok {
			s.link.detachFile(f)
		}
	})
	s.ip.Close()
	s.tasks.Wait()
	s.ip.Destroy()
	return nil
}

// target is where a connection of the guest goes. It is false where the guest
// may not go.
func (s *Stack) target(to netip.AddrPort) (netip.AddrPort, bool) {
	switch a := to.Addr(); {
	case a == s.cfg.Gateway:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to.Port()), s.cfg.HostLoopback
	case s.cfg.Guest.Contains(a), a.IsLoopback(), a.IsMulticast(), a.As4()[0] == 0, a.As4()[0] >= 240:
		return netip.AddrPort{}, false
	}
	return to, to.Port() != 0
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(a.As4()), port)
}
