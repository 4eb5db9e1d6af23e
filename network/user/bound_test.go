package user

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/duplex-run/duplex/network/proxy"
	vnet "github.com/duplex-run/duplex/vmm/virtio/net"
)

// Above the bound connections are refused, and the place of one that has ended is
// free again.
func TestBound(t *testing.T) {
	g := start(t, Config{HostLoopback: true, MaxTCP: 2, MaxUDP: 1}, allOffloads)
	to := g.gateway(hostTCP(t, echoTCP))
	var open []*gonet.TCPConn
	for range 2 {
		c, err := g.dial(to)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if _, err := g.dial(to); err == nil {
		t.Fatal("a connection above the bound")
	}
	_ = open[0].CloseWrite()
	if _, err := io.ReadAll(open[0]); err != nil {
		t.Fatal(err)
	}
	_ = open[0].Close()
	for limit := time.Now().Add(10 * time.Second); ; { // until its last packet
		if c, err := g.dial(to); err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(limit) {
			t.Fatal("the place of a connection that ended is not free")
		}
	}
	udp := netip.AddrPortFrom(g.s.Config().Gateway, hostUDP(t, echo).Port())
	a, b := g.dialUDP(udp), g.dialUDP(udp)
	for _, c := range []*gonet.UDPConn{a, b, a} {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := a.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	_ = b.SetReadDeadline(time.Now())
	if _, err := b.Read(make([]byte, 1)); err == nil {
		t.Error("a flow above the bound")
	}
}

// Close ends what is under way, and leaves no goroutine and no descriptor.
func TestCloseLeavesNothing(t *testing.T) {
	addr := hostTCP(t, echoTCP)
	echoes := hostUDP(t, echo)
	count := func() (goroutines, fds int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return runtime.NumGoroutine(), len(entries)
	}
	once := func() {
		g := start(t, Config{HostLoopback: true, Resolvers: []netip.AddrPort{hostless}}, allOffloads)
		if _, err := g.s.Publish(proxy.Port{Guest: 80}); err != nil {
			t.Fatal(err)
		}
		if _, err := g.s.Publish(proxy.Port{Guest: 80, Proto: "udp"}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			c, err := g.dial(g.gateway(addr))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write([]byte("under way"))
		}
		c := g.dialUDP(netip.AddrPortFrom(g.s.Config().Gateway, echoes.Port()))
		_, _ = c.Write([]byte("under way"))
		d := g.dialUDP(netip.AddrPortFrom(g.s.Config().DNS, 53))
		_, _ = d.Write([]byte("a query that nobody answers"))
		if _, err := c.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		// A half-open connection: a SYN without what follows.
		if err := g.syn(g.gateway(addr)); err != nil {
			t.Fatal(err)
		}
		g.close()
		if _, err := g.s.Connect(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("connect after close: %v", err)
		}
	}
	once()
	g0, f0 := count()
	for range 5 {
		once()
	}
	// The listeners' side of the connections ends when it has seen their end.
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		g1, f1 := count()
		if g1 <= g0 && f1 <= f0 {
			return
		}
		if time.Now().After(limit) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines and %d descriptors, before %d and %d\n%s", g1, f1, g0, f0, buf[:runtime.Stack(buf, true)])
		}
	}
}

// hostless is a port that drops what it gets: discard of a host that is not.
var hostless = netip.MustParseAddrPort("127.0.0.1:9")

// A flood of SYNs, from ports that finish no handshake, makes no more goroutines
// and descriptors than the bounds allow, and Close ends them all.
func TestSYNFlood(t *testing.T) {
	addr := hostTCP(t, echoTCP)
	g := start(t, Config{HostLoopback: true, MaxTCP: 8}, allOffloads)
	to := g.gateway(addr)
	before := runtime.NumGoroutine()
	for port := range uint16(20000) {
		p := synFrame(g.s.Config().Guest.Addr(), to)
		header.TCP(p[vnet.HeaderLen+header.EthernetMinimumSize+header.IPv4MinimumSize:]).SetSourcePort(port + 1)
		g.s.link.receive(p)
		// Some for each half-open connection, and those that are about to end.
		if n := runtime.NumGoroutine() - before; n > 8*halfOpen {
			t.Fatalf("%d goroutines more after %d SYNs", n, port)
		}
	}
	if n := len(g.s.publisher.TCP); n > 8 {
		t.Errorf("%d connections", n)
	}
}

// A guest that sends and never receives gets no more answers than its socket
// holds; those on their way are bounded, and Close does not wait for it.
func TestGuestThatNeverReceives(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	own, refused := s.Config().Guest.Addr(), netip.AddrPortFrom(s.Config().DNS, 9)
	s.link.receive(arpFrame(own, s.Config().DNS))
	before := runtime.NumGoroutine()
	p := synFrame(own, refused)
	source := header.TCP(p[vnet.HeaderLen+header.EthernetMinimumSize+header.IPv4MinimumSize:])
	for port := range uint16(20000) {
		source.SetSourcePort(port + 1)
		s.link.receive(p)
		if n := runtime.NumGoroutine() - before; n > 8*halfOpen {
			t.Fatalf("%d goroutines more after %d SYNs", n, port)
		}
	}
	if s.link.writing.TryLock() {
		s.link.writing.Unlock()
		t.Error("nobody waits for the guest")
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Close waits for the guest")
	}
}
