package user

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Publish listens on the host for a port of the guest and returns the address,
// with the port that the kernel chose for 0. The guest sees the connections come
// from its gateway.
func (s *Stack) Publish(p Port) (netip.AddrPort, error) {
	addr, err := s.publish(p)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("publish port %d of the guest: %w", p.Guest, err)
	}
	return addr, nil
}

func (s *Stack) publish(p Port) (netip.AddrPort, error) {
	if p.Guest == 0 {
		return netip.AddrPort{}, errors.New("not a port")
	}
	host := ""
	if p.IP.IsValid() {
		host = p.IP.String()
	}
	listen := net.JoinHostPort(host, strconv.Itoa(int(p.Host)))
	guest := tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(s.cfg.Guest.Addr().As4()), Port: p.Guest}
	switch p.Proto {
	case "tcp", "":
		l, err := net.Listen("tcp", listen)
		if err != nil {
			return netip.AddrPort{}, err
		}
		if !s.spawn(func() { s.publishTCP(l, guest) }, l) {
			return netip.AddrPort{}, net.ErrClosed
		}
		return l.Addr().(*net.TCPAddr).AddrPort(), nil
	case "udp":
		l, err := net.ListenPacket("udp", listen)
		if err != nil {
			return netip.AddrPort{}, err
		}
		c := l.(*net.UDPConn)
		if !s.spawn(func() { s.publishUDP(c, guest) }, c) {
			return netip.AddrPort{}, net.ErrClosed
		}
		return c.LocalAddr().(*net.UDPAddr).AddrPort(), nil
	}
	return netip.AddrPort{}, fmt.Errorf("unknown protocol %q", p.Proto)
}

// acceptPause follows an accept that failed, for want of descriptors perhaps.
const acceptPause = 100 * time.Millisecond

func (s *Stack) publishTCP(l net.Listener, guest tcpip.FullAddress) {
	defer s.forget(l)
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-time.After(acceptPause):
			case <-s.ctx.Done():
			}
			continue
		}
		host := c.(*net.TCPConn)
		if !s.tcp.take() {
			refuse(host)
			continue
		}
		if !s.spawn(func() { defer s.tcp.give(); s.enter(host, guest) }, host) {
			s.tcp.give()
			return
		}
	}
}

// refuse ends a connection with a RST.
func refuse(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// enter carries a connection of the host into the guest.
func (s *Stack) enter(host *net.TCPConn, to tcpip.FullAddress) {
	ctx, cancel := context.WithTimeout(s.ctx, dialTime)
	defer cancel()
	guest, err := s.dialGuest(ctx, to)
	if err != nil {
		refuse(host)
		s.forget(host)
		return
	}
	s.relay(guest, host)
}

// dialGuest is gonet.DialTCPWithBind from the gateway, with the endpoint at hand.
func (s *Stack) dialGuest(ctx context.Context, to tcpip.FullAddress) (*guestConn, error) {
	wq := new(waiter.Queue)
	ep, terr := s.ip.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, wq)
	if terr != nil {
		return nil, errors.New(terr.String())
	}
	entry, done := waiter.NewChannelEntry(waiter.WritableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if terr = ep.Bind(tcpip.FullAddress{Addr: tcpip.AddrFrom4(s.cfg.Gateway.As4())}); terr == nil {
		terr = ep.Connect(to)
	}
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			ep.Close()
			return nil, ctx.Err()
		case <-done:
			terr = ep.LastError()
		}
	}
	if terr != nil {
		ep.Close()
		return nil, errors.New(terr.String())
	}
	return &guestConn{gonet.NewTCPConn(wq, ep), ep, wq}, nil
}

// publishUDP has a flow into the guest for each sender.
func (s *Stack) publishUDP(l *net.UDPConn, to tcpip.FullAddress) {
	defer s.forget(l)
	p := &udpPort{s: s, l: l, to: to, flows: map[netip.AddrPort]*udpFlow{}}
	buf := make([]byte, datagram)
	for {
		n, from, err := l.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP message for what a flow sent
		}
		if f := p.flow(from); f != nil {
			f.busy.Store(true)
			_, _ = f.guest.Write(buf[:n]) // lost, as datagrams may be
		}
	}
}

// udpPort is a published UDP port.
type udpPort struct {
	s  *Stack
	l  *net.UDPConn
	to tcpip.FullAddress

	mu    sync.Mutex
	flows map[netip.AddrPort]*udpFlow // by sender
}

// udpFlow is the traffic with one sender.
type udpFlow struct {
	p     *udpPort
	from  netip.AddrPort
	guest *gonet.UDPConn
	busy  atomic.Bool
}

// flow returns the sender's flow, made if there is room for it.
func (p *udpPort) flow(from netip.AddrPort) *udpFlow {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.flows[from]; f != nil {
		return f
	}
	if !p.s.udp.take() {
		return nil
	}
	gateway := tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(p.s.cfg.Gateway.As4())}
	c, err := gonet.DialUDP(p.s.ip, &gateway, &p.to, ipv4.ProtocolNumber)
	if err != nil {
		p.s.udp.give()
		return nil
	}
	f := &udpFlow{p: p, from: from, guest: c}
	if !p.s.spawn(f.answer, c) {
		p.s.udp.give()
		return nil
	}
	p.flows[from] = f
	return f
}

// Write sends to the sender.
func (f *udpFlow) Write(b []byte) (int, error) { return f.p.l.WriteToUDPAddrPort(b, f.from) }

// answer sends back what the guest answers.
func (f *udpFlow) answer() {
	defer f.p.s.udp.give()
	defer f.p.s.forget(f.guest)
	end := endWhenIdle(&f.busy, f.guest)
	defer end()
	copyDatagrams(f, f.guest, &f.busy)
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	delete(f.p.flows, f.from)
}
