package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Target is what a published port leads to.
type Target struct {
	// TCP carries a connection to its end and closes it. What it opens it has to
	// keep in Tasks.
	TCP func(host *net.TCPConn)
	// UDP makes a flow of datagrams.
	UDP func() (net.Conn, error)
}

// Publisher listens on the host.
type Publisher struct {
	Tasks *Tasks
	// TCP and UDP bound the connections and flows.
	TCP, UDP Slots
}

// Publish listens on the host for p and returns the address, with the port that
// the kernel chose for 0.
func (p *Publisher) Publish(port Port, to Target) (netip.AddrPort, error) {
	addr, err := p.publish(port, to)
	if err != nil {
		return netip.AddrPort{}, &PublishError{port, err}
	}
	return addr, nil
}

func (p *Publisher) publish(port Port, to Target) (netip.AddrPort, error) {
	if port.Guest == 0 {
		return netip.AddrPort{}, errors.New("not a port")
	}
	host := ""
	if port.IP.IsValid() {
		host = port.IP.String()
	}
	listen := net.JoinHostPort(host, strconv.Itoa(int(port.Host)))
	switch port.Proto {
	case "tcp", "":
		l, err := net.Listen("tcp", listen)
		if err != nil {
			return netip.AddrPort{}, err
		}
		if !p.Tasks.Spawn(func() { p.serveTCP(l, to) }, l) {
			return netip.AddrPort{}, net.ErrClosed
		}
		return l.Addr().(*net.TCPAddr).AddrPort(), nil
	case "udp":
		l, err := net.ListenPacket("udp", listen)
		if err != nil {
			return netip.AddrPort{}, err
		}
		c := l.(*net.UDPConn)
		if !p.Tasks.Spawn(func() { p.serveUDP(c, to) }, c) {
			return netip.AddrPort{}, net.ErrClosed
		}
		return c.LocalAddr().(*net.UDPAddr).AddrPort(), nil
	}
	return netip.AddrPort{}, fmt.Errorf("unknown protocol %q", port.Proto)
}

// PublishError is a port that cannot be published.
type PublishError struct {
	Port Port
	Err  error
}

func (e *PublishError) Error() string {
	return fmt.Sprintf("publish port %d of the guest: %v", e.Port.Guest, e.Err)
}

func (e *PublishError) Unwrap() error { return e.Err }

// Remedy says what helps, "" when that is not known.
func (e *PublishError) Remedy() string {
	switch {
	case errors.Is(e.Err, unix.EADDRINUSE):
		return fmt.Sprintf("Choose another port of the host than %d, or end what listens there: ss -lntup shows it.", e.Port.Host)
	case errors.Is(e.Err, unix.EACCES):
		return fmt.Sprintf("Without root a low port as %d is refused: choose one from 1024 on, or lower net.ipv4.ip_unprivileged_port_start.", e.Port.Host)
	case errors.Is(e.Err, unix.EADDRNOTAVAIL):
		return fmt.Sprintf("The host has no address %s: 'ip address' shows those it has.", e.Port.IP)
	}
	return ""
}

// acceptPause follows an accept that failed, for want of descriptors perhaps.
const acceptPause = 100 * time.Millisecond

func (p *Publisher) serveTCP(l net.Listener, to Target) {
	defer p.Tasks.Forget(l)
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-time.After(acceptPause):
			case <-p.Tasks.Context().Done():
			}
			continue
		}
		host := c.(*net.TCPConn)
		if !p.TCP.Take() {
			Reset(host)
			continue
		}
		if !p.Tasks.Spawn(func() { defer p.TCP.Give(); defer p.Tasks.Forget(host); to.TCP(host) }, host) {
			p.TCP.Give()
			return
		}
	}
}

// serveUDP has a flow into the guest for each sender.
func (p *Publisher) serveUDP(l *net.UDPConn, to Target) {
	defer p.Tasks.Forget(l)
	u := &udpPort{p: p, l: l, to: to, flows: map[netip.AddrPort]*udpFlow{}}
	buf := make([]byte, Datagram)
	for {
		n, from, err := l.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP message for what a flow sent
		}
		if f := u.flow(from); f != nil {
			f.busy.Store(true)
			_, _ = f.guest.Write(buf[:n]) // lost, as datagrams may be
		}
	}
}

// udpPort is a published UDP port.
type udpPort struct {
	p  *Publisher
	l  *net.UDPConn
	to Target

	mu    sync.Mutex
	flows map[netip.AddrPort]*udpFlow // by sender
}

// udpFlow is the traffic with one sender.
type udpFlow struct {
	u     *udpPort
	from  netip.AddrPort
	guest net.Conn
	busy  atomic.Bool
}

// flow returns the sender's flow, made if there is room for it.
func (u *udpPort) flow(from netip.AddrPort) *udpFlow {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f := u.flows[from]; f != nil {
		return f
	}
	if !u.p.UDP.Take() {
		return nil
	}
	c, err := u.to.UDP()
	if err != nil {
		u.p.UDP.Give()
		return nil
	}
	f := &udpFlow{u: u, from: from, guest: c}
	if !u.p.Tasks.Spawn(f.answer, c) {
		u.p.UDP.Give()
		return nil
	}
	u.flows[from] = f
	return f
}

// Write sends to the sender.
func (f *udpFlow) Write(b []byte) (int, error) { return f.u.l.WriteToUDPAddrPort(b, f.from) }

// answer sends back what comes from inside.
func (f *udpFlow) answer() {
	defer f.u.p.UDP.Give()
	defer f.u.p.Tasks.Forget(f.guest)
	end := endWhenIdle(&f.busy, f.guest)
	defer end()
	copyDatagrams(f, f.guest, &f.busy)
	f.u.mu.Lock()
	defer f.u.mu.Unlock()
	delete(f.u.flows, f.from)
}
