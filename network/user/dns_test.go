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
	g.s.answer = 100 * time.Millisecond
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
