package user

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/duplex-run/duplex/network/proxy"
)

const (
	// lingerTime bounds how long the end of a connection waits for the guest to
	// acknowledge it. The connection counts until then.
	lingerTime = time.Minute
	// keepAlive is how long a guest may say nothing before it is asked.
	keepAlive = 2 * time.Minute
)

var errNoTarget = errors.New("the guest may not go there")

// acceptTCP handles a connection that the guest makes. The stack bounds those
// too, but forgets them before their last packet is sent, and a guest that
// receives nothing would have them wait there.
func (s *Stack) acceptTCP(r *tcp.ForwarderRequest) {
	if !s.half.Take() {
		r.Complete(false) // no answer: the guest tries again
		return
	}
	if !s.tasks.Spawn(func() { s.forwardTCP(r) }) {
		s.half.Give()
		r.Complete(false)
	}
}

func (s *Stack) forwardTCP(r *tcp.ForwarderRequest) {
	if !s.publisher.TCP.Take() {
		r.Complete(true)
		s.half.Give()
		return
	}
	defer s.publisher.TCP.Give()
	guest, host := s.connectTCP(r)
	s.half.Give()
	if guest != nil {
		s.relay(guest, host)
	}
}

// connectTCP connects to the host first, so that a guest's connect fails where
// that does.
func (s *Stack) connectTCP(r *tcp.ForwarderRequest) (*guestConn, *net.TCPConn) {
	host, err := s.dialTCP(addrPort(r.ID().LocalAddress, r.ID().LocalPort))
	if err != nil {
		r.Complete(true)
		return nil, nil
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	r.Complete(terr != nil)
	if terr != nil {
		_ = host.Close()
		return nil, nil
	}
	return &guestConn{gonet.NewTCPConn(&wq, ep), ep, &wq}, host
}

// dialTCP connects to where the guest wants to go.
func (s *Stack) dialTCP(to netip.AddrPort) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(s.tasks.Context(), dialTime)
	defer cancel()
	var d net.Dialer
	targets := []netip.AddrPort{}
	if to.Addr() == s.cfg.DNS && to.Port() == proxy.DNSPort {
		targets = s.resolver.List()
	} else if t, ok := s.target(to); ok {
		targets = append(targets, t)
	}
	err := errNoTarget
	for _, t := range targets {
		var c net.Conn
		if c, err = d.DialContext(ctx, "tcp", t.String()); err == nil {
			return c.(*net.TCPConn), nil
		}
	}
	return nil, err
}

// guestConn is the stack's end of a connection with the guest.
type guestConn struct {
	*gonet.TCPConn
	ep tcpip.Endpoint
	wq *waiter.Queue
}

// relay copies both ways until both have ended, and closes both.
func (s *Stack) relay(guest *guestConn, host *net.TCPConn) {
	guest.ep.SocketOptions().SetKeepAlive(true)
	idle := tcpip.KeepaliveIdleOption(keepAlive)
	_ = guest.ep.SetSockOpt(&idle) // fails for no TCP only
	if !s.tasks.Keep(host) {
		guest.ep.Abort()
		return
	}
	defer s.tasks.Forget(host)
	proxy.Relay(guest, host, func() {
		proxy.Reset(host)
		guest.ep.Abort()
	})
	guest.finish(s.tasks.Context())
}

// finish waits until the guest has seen the end of the connection.
func (g *guestConn) finish(ctx context.Context) {
	entry, ended := waiter.NewChannelEntry(waiter.EventHUp | waiter.EventErr)
	g.wq.EventRegister(&entry)
	defer g.wq.EventUnregister(&entry)
	_ = g.Close()
	limit := time.NewTimer(lingerTime)
	defer limit.Stop()
	for !g.over() {
		select {
		case <-ended:
		case <-limit.C:
			g.ep.Abort()
			return
		case <-ctx.Done():
			g.ep.Abort()
			return
		}
	}
	g.ep.Abort() // nothing to wait for in TIME_WAIT: no packet is late here
}

func (g *guestConn) over() bool {
	switch tcp.EndpointState(g.ep.State()) {
	case tcp.StateTimeWait, tcp.StateClose, tcp.StateError:
		return true
	}
	return false
}
