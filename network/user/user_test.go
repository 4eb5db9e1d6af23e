package user

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	vnet "github.com/duplex-run/duplex/vmm/virtio/net"
)

// guest is a machine on the network: another stack, on the device's end.
type guest struct {
	tb   testing.TB
	s    *Stack
	ip   *stack.Stack
	link *link
	f    *os.File
	done chan struct{}
}

const allOffloads = vnet.FeatureCsum | vnet.FeatureGuestCsum | vnet.FeatureHostTSO4 | vnet.FeatureGuestTSO4

// start makes a network and a guest on it.
func start(tb testing.TB, cfg Config, offloads uint64) *guest {
	tb.Helper()
	s, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	f, err := s.Connect()
	if err != nil {
		tb.Fatal(err)
	}
	g := &guest{tb: tb, s: s, f: f, done: make(chan struct{})}
	own := s.Config().Guest
	addr := tcpip.AddrFrom4(own.Addr().As4())
	g.link = &link{mac: "\x02guest", mtu: s.Config().MTU, own: []tcpip.Address{addr}}
	g.link.offloads.Store(offloads)
	g.ip = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	must := func(err tcpip.Error) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	must(g.ip.CreateNIC(nic, ethernet.New(g.link)))
	must(g.ip.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: addr, PrefixLen: own.Bits()}}, stack.AddressProperties{}))
	subnet, err := tcpip.NewSubnet(tcpip.AddrFrom4(own.Masked().Addr().As4()), tcpip.MaskFromBytes(net.CIDRMask(own.Bits(), 32)))
	if err != nil {
		tb.Fatal(err)
	}
	g.ip.SetRouteTable([]tcpip.Route{{Destination: subnet, NIC: nic},
		{Destination: header.IPv4EmptySubnet, Gateway: tcpip.AddrFrom4(s.Config().Gateway.As4()), NIC: nic}})
	msg := vnet.OffloadMessage(offloads)
	if _, err := f.Write(msg[:]); err != nil {
		tb.Fatal(err)
	}
	g.link.attachFile(f)
	go func() {
		defer close(g.done)
		_ = g.link.serve(f)
	}()
	tb.Cleanup(g.close)
	return g
}

// close ends the guest and the network.
func (g *guest) close() {
	if g.f == nil {
		return
	}
	if err := g.s.Close(); err != nil {
		g.tb.Error(err)
	}
	g.link.detachFile(g.f)
	<-g.done
	_ = g.f.Close()
	g.f = nil
	g.ip.Destroy()
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(a.Addr().As4()), Port: a.Port()}
}

// dial connects from the guest.
func (g *guest) dial(to netip.AddrPort) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := gonet.DialContextTCP(ctx, g.ip, full(to), ipv4.ProtocolNumber)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c, err
}

func (g *guest) dialUDP(to netip.AddrPort) *gonet.UDPConn {
	g.tb.Helper()
	remote := full(to)
	c, err := gonet.DialUDP(g.ip, nil, &remote, ipv4.ProtocolNumber)
	if err != nil {
		g.tb.Fatal(err)
	}
	g.tb.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// gateway is the host's loopback as the guest sees it.
func (g *guest) gateway(a net.Addr) netip.AddrPort {
	port := 0
	switch a := a.(type) {
	case *net.TCPAddr:
		port = a.Port
	case *net.UDPAddr:
		port = a.Port
	}
	return netip.AddrPortFrom(g.s.Config().Gateway, uint16(port))
}

// hostTCP serves connections on the host's loopback until the test ends.
func hostTCP(tb testing.TB, serve func(*net.TCPConn)) net.Addr {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var all sync.WaitGroup
	ended := make(chan struct{})
	tb.Cleanup(func() {
		_ = l.Close()
		close(ended)
		all.Wait()
	})
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = c.Close() }()
				served := make(chan struct{})
				all.Go(func() {
					select {
					case <-ended:
						_ = c.Close()
					case <-served:
					}
				})
				serve(c.(*net.TCPConn))
				close(served)
			})
		}
	})
	return l.Addr()
}

func echoTCP(c *net.TCPConn) { _, _ = io.Copy(c, c) }

// hostUDP answers datagrams on the host's loopback until the test ends; an
// answer of nil is none.
func hostUDP(tb testing.TB, answer func([]byte) []byte) netip.AddrPort {
	tb.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	tb.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, datagram)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if a := answer(buf[:n]); err == nil && a != nil {
				_, _ = c.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func echo(p []byte) []byte { return p }

// Bytes come through unchanged both ways at once, with and without offloads, and
// each direction ends on its own.
func TestTCP(t *testing.T) {
	for name, offloads := range map[string]uint64{"offloads": allOffloads, "plain": 0} {
		t.Run(name, func(t *testing.T) {
			g := start(t, Config{HostLoopback: true}, offloads)
			c, err := g.dial(g.gateway(hostTCP(t, echoTCP)))
			if err != nil {
				t.Fatal(err)
			}
			want := make([]byte, 4<<20)
			for i := range want {
				want[i] = byte(i>>16) ^ byte(i>>8) ^ byte(i)
			}
			go func() {
				_, _ = c.Write(want)
				_ = c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d came back, %v", len(got), len(want), err)
			}
			if n := g.s.link.dropped.Load(); n != 0 {
				t.Errorf("%d packets dropped", n)
			}
		})
	}
}

// A guest may not go to the host's loopback, nor to what is nobody's; its
// connect fails at once.
func TestRefused(t *testing.T) {
	g := start(t, Config{}, allOffloads)
	port := g.gateway(hostTCP(t, echoTCP)).Port()
	for _, to := range []string{"10.0.2.2", "10.0.2.3", "10.0.2.77"} {
		if c, err := g.dial(netip.AddrPortFrom(netip.MustParseAddr(to), port)); err == nil {
			t.Errorf("%s: connected", to)
			_ = c.Close()
		}
	}
	for _, to := range []string{"10.0.2.2", "10.0.2.3", "10.0.2.77", "127.0.0.1", "127.9.9.9", "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255"} {
		if _, ok := g.s.target(netip.AddrPortFrom(netip.MustParseAddr(to), port)); ok {
			t.Errorf("%s is a target", to)
		}
	}
	for _, to := range []string{"192.0.2.1:80", "10.0.3.1:1", "169.254.1.1:80"} {
		a := netip.MustParseAddrPort(to)
		if got, ok := g.s.target(a); !ok || got != a {
			t.Errorf("%s is no target", to)
		}
	}
}

func TestRefusedByHost(t *testing.T) {
	g := start(t, Config{HostLoopback: true}, allOffloads)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if _, err := g.dial(g.gateway(l.Addr())); err == nil {
		t.Error("connected to a port where nobody listens")
	}
}

// A reset on the host's side reaches the guest.
func TestReset(t *testing.T) {
	g := start(t, Config{HostLoopback: true}, allOffloads)
	c, err := g.dial(g.gateway(hostTCP(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0)
	})))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestUDP(t *testing.T) {
	g := start(t, Config{HostLoopback: true}, allOffloads)
	to := netip.AddrPortFrom(g.s.Config().Gateway, hostUDP(t, echo).Port())
	for range 3 {
		c := g.dialUDP(to)
		for _, n := range []int{1, 1400, 9000} { // the last in fragments
			want := bytes.Repeat([]byte{byte(n)}, n)
			if _, err := c.Write(want); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, datagram)
			if m, err := c.Read(buf); err != nil || !bytes.Equal(buf[:m], want) {
				t.Fatalf("%d bytes of %d, %v", m, n, err)
			}
		}
	}
}

// The first resolver says nothing, the second answers, with another's answer
// before its own.
func TestDNS(t *testing.T) {
	query := []byte("\x12\x34 a query of enough bytes")
	silent := hostUDP(t, func([]byte) []byte { return nil })
	answers := hostUDP(t, func(q []byte) []byte { return append(bytes.Clone(q[:2]), "the answer"...) })
	tcpAnswers := hostTCP(t, echoTCP).(*net.TCPAddr).AddrPort()
	g := start(t, Config{Resolvers: []netip.AddrPort{silent, answers}}, allOffloads)
	c := g.dialUDP(netip.AddrPortFrom(g.s.Config().DNS, 53))
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "\x12\x34the answer" {
		t.Errorf("answer %q, %v", buf[:n], err)
	}
	g.s.cfg.Resolvers = []netip.AddrPort{tcpAnswers}
	s, err := g.dial(netip.AddrPortFrom(g.s.Config().DNS, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Write(query); err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(s, buf[:len(query)]); err != nil || !bytes.Equal(buf[:n], query) {
		t.Errorf("answer %q, %v", buf[:n], err)
	}
}

// Every query has a port of its own: flows end with their answers, so that many
// queries need few of them.
func TestManyQueries(t *testing.T) {
	answers := hostUDP(t, echo)
	g := start(t, Config{Resolvers: []netip.AddrPort{answers}, MaxDNS: 8}, allOffloads)
	to := netip.AddrPortFrom(g.s.Config().DNS, 53)
	query := []byte("a query with an id")
	lost := 0
	for answered := 0; answered < 24; {
		c := g.dialUDP(to)
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = c.Write(query)
		if _, err := c.Read(make([]byte, 100)); err != nil {
			if lost++; lost > 100 {
				t.Fatalf("%d of 24 queries answered, %d not", answered, lost)
			}
			continue
		}
		answered++
	}
}

func TestParseResolvers(t *testing.T) {
	for conf, want := range map[string]string{
		"": "[127.0.0.1:53]",
		"# nameserver 1.1.1.1\nsearch x\nnameserver 9.9.9.9\n":                                               "[9.9.9.9:53]",
		"nameserver 127.0.0.53\nnameserver ::1 # v6\nnameserver bad\nnameserver 1.1.1.1\nnameserver 8.8.8.8": "[127.0.0.53:53 [::1]:53 1.1.1.1:53]",
	} {
		var got []string
		for _, r := range parseResolvers([]byte(conf)) {
			got = append(got, r.String())
		}
		if s := "[" + string(bytes.Join(toBytes(got), []byte(" "))) + "]"; s != want {
			t.Errorf("%q: %s, want %s", conf, s, want)
		}
	}
}

func toBytes(list []string) (out [][]byte) {
	for _, s := range list {
		out = append(out, []byte(s))
	}
	return out
}

func TestPublishTCP(t *testing.T) {
	g := start(t, Config{}, allOffloads)
	l, err := gonet.ListenTCP(g.ip, tcpip.FullAddress{NIC: nic, Port: 80}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	from := make(chan net.Addr, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		from <- c.RemoteAddr()
		_, _ = io.Copy(c, c)
		_ = c.Close()
	}()
	defer func() { _ = l.Close() }()
	addr, err := g.s.Publish(Port{IP: netip.MustParseAddr("127.0.0.1"), Guest: 80})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	want := bytes.Repeat([]byte("to the guest and back "), 50000)
	go func() {
		_, _ = c.Write(want)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	if a := (<-from).(*net.TCPAddr).AddrPort().Addr(); a != g.s.Config().Gateway {
		t.Errorf("the guest sees %s", a)
	}
	if _, err := g.s.Publish(Port{IP: addr.Addr(), Host: addr.Port(), Guest: 81}); err == nil {
		t.Error("a port is published twice")
	}
	// Where nobody listens in the guest the host sees a reset.
	if addr, err = g.s.Publish(Port{IP: netip.MustParseAddr("127.0.0.1"), Guest: 9}); err != nil {
		t.Fatal(err)
	}
	r, err := net.Dial("tcp", addr.String())
	if errors.Is(err, unix.ECONNRESET) {
		return // it came that soon
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	_ = r.SetDeadline(time.Now().Add(20 * time.Second))
	if n, err := r.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestPublishUDP(t *testing.T) {
	g := start(t, Config{}, allOffloads)
	local := tcpip.FullAddress{NIC: nic, Port: 53}
	in, err := gonet.DialUDP(g.ip, &local, nil, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, datagram)
		for {
			n, from, err := in.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = in.WriteTo(buf[:n], from)
		}
	}()
	defer func() { _ = in.Close() }()
	addr, err := g.s.Publish(Port{IP: netip.MustParseAddr("127.0.0.1"), Guest: 53, Proto: "udp"})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one sender", "another"} {
		c, err := net.Dial("udp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		for range 2 {
			if _, err := c.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			if n, err := c.Read(buf); err != nil || string(buf[:n]) != text {
				t.Errorf("read %q, %v", buf[:n], err)
			}
		}
		_ = c.Close()
	}
}

// ping sends echo requests, in order, and returns who answers first.
func (g *guest) ping(to ...netip.Addr) netip.Addr {
	g.tb.Helper()
	var wq waiter.Queue
	ep, terr := g.ip.NewEndpoint(icmp.ProtocolNumber4, ipv4.ProtocolNumber, &wq)
	if terr != nil {
		g.tb.Fatal(terr)
	}
	defer ep.Close()
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	for _, a := range to {
		p := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize))
		p.SetType(header.ICMPv4Echo)
		dst := full(netip.AddrPortFrom(a, 0))
		if _, terr := ep.Write(bytes.NewReader(p), tcpip.WriteOptions{To: &dst}); terr != nil {
			g.tb.Fatal(terr)
		}
	}
	for {
		select {
		case <-readable:
		case <-time.After(10 * time.Second):
			g.tb.Fatal("nobody answers")
		}
		res, terr := ep.Read(io.Discard, tcpip.ReadOptions{NeedRemoteAddr: true})
		if terr == nil {
			return netip.AddrFrom4(res.RemoteAddr.Addr.As4())
		}
	}
}

// The stack answers for itself, not for the world behind it.
func TestPing(t *testing.T) {
	g := start(t, Config{}, allOffloads)
	gateway, dns := g.s.Config().Gateway, g.s.Config().DNS
	for _, a := range []netip.Addr{gateway, dns} {
		if got := g.ping(a); got != a {
			t.Errorf("%s answers for %s", got, a)
		}
	}
	if got := g.ping(netip.MustParseAddr("192.0.2.1"), gateway); got != gateway {
		t.Errorf("%s answers", got)
	}
}

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
		if _, err := g.s.Publish(Port{Guest: 80}); err != nil {
			t.Fatal(err)
		}
		if _, err := g.s.Publish(Port{Guest: 80, Proto: "udp"}); err != nil {
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

// syn sends a SYN by hand, from a port of which the guest knows nothing.
func (g *guest) syn(to netip.AddrPort) error {
	_, err := g.f.Write(synFrame(g.s.Config().Guest.Addr(), to))
	return err
}

func synFrame(from netip.Addr, to netip.AddrPort) []byte {
	seg := make([]byte, header.TCPMinimumSize)
	header.TCP(seg).Encode(&header.TCPFields{SrcPort: 1, DstPort: to.Port(), SeqNum: 7,
		DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 1000})
	p := ipFrame(from, to.Addr(), uint8(tcp.ProtocolNumber), seg)
	vnet.Header{Flags: vnet.NeedsCsum, CsumStart: 34, CsumOffset: 16}.Put(p)
	return p
}

// ipFrame is a packet of the device: header, Ethernet, IPv4.
func ipFrame(from, to netip.Addr, proto uint8, payload []byte) []byte {
	p := make([]byte, vnet.HeaderLen+header.EthernetMinimumSize+header.IPv4MinimumSize, 128)
	eth := header.Ethernet(p[vnet.HeaderLen:])
	eth.Encode(&header.EthernetFields{SrcAddr: "\x02guest", DstAddr: gatewayMAC, Type: ipv4.ProtocolNumber})
	header.IPv4(eth[header.EthernetMinimumSize:]).Encode(&header.IPv4Fields{
		TotalLength: uint16(header.IPv4MinimumSize + len(payload)), TTL: 64, Protocol: proto,
		SrcAddr: tcpip.AddrFrom4(from.As4()), DstAddr: tcpip.AddrFrom4(to.As4())})
	return append(p, payload...)
}

// arpFrame asks for an address.
func arpFrame(from, to netip.Addr) []byte {
	p := make([]byte, vnet.HeaderLen+header.EthernetMinimumSize+header.ARPSize)
	eth := header.Ethernet(p[vnet.HeaderLen:])
	eth.Encode(&header.EthernetFields{SrcAddr: "\x02guest", DstAddr: header.EthernetBroadcastAddress, Type: arp.ProtocolNumber})
	a := header.ARP(eth[header.EthernetMinimumSize:])
	a.SetIPv4OverEthernet()
	a.SetOp(header.ARPRequest)
	copy(a.HardwareAddressSender(), "\x02guest")
	copy(a.ProtocolAddressSender(), from.AsSlice())
	copy(a.ProtocolAddressTarget(), to.AsSlice())
	return p
}
