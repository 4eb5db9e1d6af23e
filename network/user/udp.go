package user

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// udpIdle ends a flow without datagrams, as NATs do (RFC 4787, REQ-5, asks for
	// two minutes at least).
	udpIdle = 2 * time.Minute
	// datagram bounds one, in bytes.
	datagram = 64 << 10
)

// acceptUDP handles the first datagram of a flow from the guest. It is called
// where packets arrive, so it does not block. The stack answers those not handled
// with "port unreachable".
func (s *Stack) acceptUDP(r *udp.ForwarderRequest) (handled bool) {
	to := addrPort(r.ID().LocalAddress, r.ID().LocalPort)
	query := to == netip.AddrPortFrom(s.cfg.DNS, dnsPort)
	target, ok := s.target(to)
	if !ok && !query {
		return to.Addr().IsMulticast() // no answer to what goes to many
	}
	bound := s.udp
	if query {
		bound = s.dns
	}
	if !bound.take() {
		return true // dropped
	}
	var host *net.UDPConn
	if !query {
		// Connecting a datagram socket sends nothing, and does not block.
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target))
		if err != nil {
			bound.give()
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
		bound.give()
		return true
	}
	guest := gonet.NewUDPConn(&wq, ep)
	flow := func() { relayUDP(guest, host) }
	kept := []io.Closer{guest}
	if query {
		flow = func() { s.serveDNS(guest) }
	} else {
		kept = append(kept, host)
	}
	if !s.spawn(func() { defer bound.give(); defer s.forget(kept...); flow() }, kept...) {
		bound.give()
	}
	return true
}

// relayUDP copies datagrams both ways until there were none for a while, and
// closes both.
func relayUDP(a, b net.Conn) {
	busy := new(atomic.Bool)
	end := endWhenIdle(busy, a, b)
	defer end()
	var other sync.WaitGroup
	other.Go(func() { copyDatagrams(a, b, busy); end() })
	copyDatagrams(b, a, busy)
	end()
	other.Wait()
}

// endWhenIdle closes c when busy was not set for udpIdle, or when it is called.
func endWhenIdle(busy *atomic.Bool, c ...io.Closer) (end func()) {
	var timer *time.Timer
	var mu sync.Mutex // timer is set when its function runs
	closeAll := sync.OnceFunc(func() {
		for _, c := range c {
			_ = c.Close()
		}
	})
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(udpIdle, func() {
		mu.Lock()
		defer mu.Unlock()
		if busy.Swap(false) {
			timer.Reset(udpIdle)
			return
		}
		closeAll()
	})
	return func() {
		timer.Stop()
		closeAll()
	}
}

// maxErrors bounds the failures in a row of a flow's socket: each is an ICMP
// message that came back, or a datagram that could not be sent.
const maxErrors = 32

func copyDatagrams(dst io.Writer, src io.Reader, busy *atomic.Bool) {
	buf := make([]byte, datagram)
	for failed := 0; failed < maxErrors; {
		n, err := src.Read(buf)
		if err == nil {
			busy.Store(true)
			_, err = dst.Write(buf[:n])
		}
		switch {
		case err == nil:
			failed = 0
		case err == io.EOF, errors.Is(err, net.ErrClosed):
			return
		default:
			failed++
		}
	}
}
