package user

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
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

// serveDNS answers the queries of one flow.
func (s *Stack) serveDNS(guest net.Conn) {
	busy := new(atomic.Bool)
	end := endWhenIdle(busy, guest)
	defer end()
	buf := make([]byte, datagram)
	for failed := 0; failed < maxErrors; {
		n, err := guest.Read(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			failed++
			continue
		}
		busy.Store(true)
		if n < dnsHeader || !s.dns.take() {
			continue
		}
		query := bytes.Clone(buf[:n])
		if !s.spawn(func() {
			defer s.dns.give()
			if answer := s.resolve(query); answer != nil {
				_, _ = guest.Write(answer) // lost, as datagrams may be
			}
		}) {
			s.dns.give()
			return
		}
	}
}

// dnsHeader is the length of a message's header (RFC 1035, 4.1.1).
const dnsHeader = 12

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
	if c.SetDeadline(time.Now().Add(answerTime)) != nil {
		return nil
	}
	if _, err := c.Write(query); err != nil {
		return nil
	}
	buf := make([]byte, datagram)
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
