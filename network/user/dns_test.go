package user

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// The first resolver says nothing, the second answers, with another's answer
// before its own.
func TestDNS(t *testing.T) {
	query := []byte("\x12\x34 a query of enough bytes")
	silent := hostUDP(t, func([]byte) []byte { return nil })
	answers := hostUDP(t, func(q []byte) []byte { return append(bytes.Clone(q[:2]), "the answer"...) })
	tcpAnswers := hostTCP(t, echoTCP).(*net.TCPAddr).AddrPort()
	g := start(t, Config{Resolvers: []netip.AddrPort{silent, answers}}, allOffloads)
	g.s.resolver.Wait = 100 * time.Millisecond
	c := g.dialUDP(netip.AddrPortFrom(g.s.Config().DNS, 53))
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "\x12\x34the answer" {
		t.Errorf("answer %q, %v", buf[:n], err)
	}
	g = start(t, Config{Resolvers: []netip.AddrPort{tcpAnswers}}, allOffloads)
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
