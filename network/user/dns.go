package user

import (
	"bufio"
	"bytes"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	dnsPort = 53
	// maxResolvers is what the C library takes from resolv.conf (MAXNS).
	maxResolvers = 3
	// answerTime is how long a resolver has before the next is asked.
	answerTime = 2 * time.Second
	resolvConf = "/etc/resolv.conf"
)

// resolvers are asked in this order.
func (s *Stack) resolvers() []netip.AddrPort {
	if s.cfg.Resolvers != nil {
		return s.cfg.Resolvers
	}
	conf, _ := os.ReadFile(resolvConf) // none is like an empty one
	return parseResolvers(conf)
}

// parseResolvers reads the nameservers of a resolv.conf(5).
func parseResolvers(conf []byte) (list []netip.AddrPort) {
	for lines := bufio.NewScanner(bytes.NewReader(conf)); lines.Scan() && len(list) < maxResolvers; {
		f := strings.Fields(lines.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			list = append(list, netip.AddrPortFrom(a, dnsPort))
		}
	}
	if list == nil {
		list = append(list, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsPort))
	}
	return list
}

// serveDNS answers the queries of one flow until there are none under way. A
// resolver takes another port for its next query, so flows have to end soon.
func (s *Stack) serveDNS(guest net.Conn) {
	var mu sync.Mutex // count and deadline change together
	count := 0
	queries := func(change int) {
		mu.Lock()
		defer mu.Unlock()
		var deadline time.Time
		if count += change; count == 0 {
			deadline = time.Now().Add(dnsIdle)
		}
		_ = guest.SetReadDeadline(deadline) // never fails
	}
	queries(0)
	running := make(slots, dnsPerFlow)
	buf := make([]byte, dnsMessage)
	for {
		n, err := guest.Read(buf)
		if err != nil {
			return
		}
		if n < dnsHeader || !running.take() {
			continue
		}
		query := bytes.Clone(buf[:n])
		queries(1)
		if !s.spawn(func() {
			defer running.give()
			defer queries(-1)
			if answer := s.resolve(query); answer != nil {
				_, _ = guest.Write(answer) // lost, as datagrams may be
			}
		}) {
			return
		}
	}
}

const (
	// dnsHeader is the length of a message's header (RFC 1035, 4.1.1).
	dnsHeader = 12
	// dnsMessage bounds a query or an answer in bytes: more than servers send by
	// UDP (RFC 9715). Larger answers come by TCP.
	dnsMessage = 8 << 10
	// dnsPerFlow bounds the queries under way from one port.
	dnsPerFlow = 4
	// dnsIdle is how long a flow waits for another query.
	dnsIdle = 200 * time.Millisecond
)

// resolve asks the resolvers in turn and returns the first answer, or nil. The
// messages are not looked at, beyond their id.
func (s *Stack) resolve(query []byte) []byte {
	for _, r := range s.resolvers() {
		if answer := s.ask(r, query); answer != nil {
			return answer
		}
	}
	return nil
}

func (s *Stack) ask(r netip.AddrPort, query []byte) []byte {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r))
	if err != nil || !s.keep(c) {
		return nil
	}
	defer s.forget(c)
	if c.SetDeadline(time.Now().Add(s.answer)) != nil {
		return nil
	}
	if _, err := c.Write(query); err != nil {
		return nil
	}
	buf := make([]byte, dnsMessage)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil
		}
		if n >= dnsHeader && bytes.Equal(buf[:2], query[:2]) {
			return buf[:n]
		}
	}
}
