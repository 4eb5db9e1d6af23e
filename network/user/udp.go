package user

import (
	"io"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/duplex-run/duplex/network/proxy"
)

// acceptUDP handles the first datagram of a flow from the guest. It is called
// where packets arrive, so it does not block. The stack answers those not handled
// with "port unreachable".
func (s *Stack) acceptUDP(r *udp.ForwarderRequest) (handled bool) {
	to := addrPort(r.ID().LocalAddress, r.ID().LocalPort)
	query := to == netip.AddrPortFrom(s.cfg.DNS, proxy.DNSPort)
	target, ok := s.target(to)
	if !ok && !query {
		return to.Addr().IsMulticast() // no answer to what goes to many
	}
	bound := s.publisher.UDP
	if query {
		bound = s.dns
	}
	if !bound.Take() {
		return true // dropped
	}
	var host *net.UDPConn
	if !query {
		// Connecting a datagram socket sends nothing, and does not block.
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target))
		if err != nil {
			bound.Give()
			return false
		}
		host = c
	}
	var wq waiter.Queue
	ep, err := r.CreateEndpoint(&wq)
	if err != nil {
		if host != nil {
			_ = host.Close()
		}
		bound.Give()
		return true
	}
	guest := gonet.NewUDPConn(&wq, ep)
	flow := func() { proxy.RelayUDP(guest, host) }
	kept := []io.Closer{guest}
	if query {
		flow = func() { s.resolver.Serve(guest) }
	} else {
		kept = append(kept, host)
	}
	if !s.tasks.Spawn(func() { defer bound.Give(); defer s.tasks.Forget(kept...); flow() }, kept...) {
		bound.Give()
	}
	return true
}
