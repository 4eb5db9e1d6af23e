package user

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"github.com/duplex-run/duplex/network/proxy"
)

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
	addr, err := g.s.Publish(proxy.Port{IP: netip.MustParseAddr("127.0.0.1"), Guest: 80})
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
	if _, err := g.s.Publish(proxy.Port{IP: addr.Addr(), Host: addr.Port(), Guest: 81}); err == nil {
		t.Error("a port is published twice")
	}
	// Where nobody listens in the guest the host sees a reset.
	if addr, err = g.s.Publish(proxy.Port{IP: netip.MustParseAddr("127.0.0.1"), Guest: 9}); err != nil {
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
		buf := make([]byte, proxy.Datagram)
		for {
			n, from, err := in.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = in.WriteTo(buf[:n], from)
		}
	}()
	defer func() { _ = in.Close() }()
	addr, err := g.s.Publish(proxy.Port{IP: netip.MustParseAddr("127.0.0.1"), Guest: 53, Proto: "udp"})
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
