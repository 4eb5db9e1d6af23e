package user

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/duplex-run/duplex/network/proxy"
)

// Publish listens on the host for a port of the guest and returns the address,
// with the port that the kernel chose for 0. The guest sees the connections come
// from its gateway. Errors are *proxy.PublishError.
func (s *Stack) Publish(p proxy.Port) (netip.AddrPort, error) {
	guest := tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(s.cfg.Guest.Addr().As4()), Port: p.Guest}
	return s.publisher.Publish(p, proxy.Target{
		TCP: func(host *net.TCPConn) { s.enter(host, guest) },
		UDP: func() (net.Conn, error) {
			gateway := tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(s.cfg.Gateway.As4())}
			return gonet.DialUDP(s.ip, &gateway, &guest, ipv4.ProtocolNumber)
		},
	})
}

// enter carries a connection of the host into the guest.
func (s *Stack) enter(host *net.TCPConn, to tcpip.FullAddress) {
	ctx, cancel := context.WithTimeout(s.tasks.Context(), dialTime)
	defer cancel()
	guest, err := s.dialGuest(ctx, to)
	if err != nil {
		proxy.Reset(host)
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
