package user

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/duplex-run/duplex/network/proxy"
)

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
			buf := make([]byte, proxy.Datagram)
			if m, err := c.Read(buf); err != nil || !bytes.Equal(buf[:m], want) {
				t.Fatalf("%d bytes of %d, %v", m, n, err)
			}
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
