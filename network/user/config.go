package user

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Config says what network to make. The zero Config is the usual one.
type Config struct {
	// Guest is the guest's address and its network; 10.0.2.15/24 by default.
	Guest netip.Prefix
	// Gateway and DNS are addresses in that network, the second and third by
	// default.
	Gateway, DNS netip.Addr
	// MTU in bytes, 576 to 65521; 0 means 1500. The device must have the same.
	MTU int
	// HostLoopback makes the gateway's ports those of the host's 127.0.0.1.
	HostLoopback bool
	// Resolvers answer DNS; nil means those of /etc/resolv.conf, which is read
	// again for each query.
	Resolvers []netip.AddrPort

	// MaxTCP bounds the TCP connections of both directions together, those that
	// are being made or torn down included; 512 by default. Each is at most two
	// descriptors and 320 KiB: 128 KiB to send, as much received, 64 KiB copied.
	MaxTCP int
	// MaxUDP bounds the UDP flows of both directions together; 256 by default.
	// Each is one descriptor and at most 256 KiB, for udpIdle after its last
	// datagram.
	MaxUDP int
	// MaxDNS bounds the DNS flows, one for a query usually; 256 by default, at
	// most 100 KiB and four descriptors each.
	MaxDNS int
}

// Complete fills in the defaults and checks the rest, as New does.
func (c *Config) Complete() error {
	if !c.Guest.IsValid() {
		c.Guest = netip.MustParsePrefix("10.0.2.15/24")
	}
	network := c.Guest.Masked()
	if !c.Gateway.IsValid() {
		c.Gateway = network.Addr().Next().Next()
	}
	if !c.DNS.IsValid() {
		c.DNS = network.Addr().Next().Next().Next()
	}
	for _, n := range []struct {
		p        *int
		fallback int
	}{{&c.MTU, 1500}, {&c.MaxTCP, 512}, {&c.MaxUDP, 256}, {&c.MaxDNS, 256}} {
		if *n.p == 0 {
			*n.p = n.fallback
		}
	}
	switch {
	case !c.Guest.Addr().Is4():
		return fmt.Errorf("user network: %s is not IPv4", c.Guest)
	case c.Guest.Bits() > 29:
		return fmt.Errorf("user network: %s has no room for gateway and DNS", c.Guest)
	case !network.Contains(c.Gateway) || !network.Contains(c.DNS):
		return fmt.Errorf("user network: gateway %s and DNS %s are not both in %s", c.Gateway, c.DNS, network)
	case c.Gateway == c.DNS || c.Gateway == c.Guest.Addr() || c.DNS == c.Guest.Addr() || c.Guest.Addr() == network.Addr():
		return errors.New("user network: guest, gateway and DNS need addresses of their own")
	case c.MTU < 576 || c.MTU > 65521:
		return fmt.Errorf("user network: MTU %d is not 576 to 65521", c.MTU)
	case c.MaxTCP < 0 || c.MaxUDP < 0 || c.MaxDNS < 0:
		return errors.New("user network: a bound is negative")
	}
	return nil
}

// Port publishes a port of the guest on the host.
type Port struct {
	// IP is the host's address to listen on; the zero Addr means all of them.
	IP netip.Addr
	// Host is the host's port; 0 means that the kernel chooses one.
	Host uint16
	// Guest is the guest's port.
	Guest uint16
	// Proto is "tcp" or "udp"; empty means tcp.
	Proto string
}

// ParsePort reads docker's -p: [[IP:][HOST]:]GUEST[/PROTO], with an IPv6 address
// in brackets.
func ParsePort(s string) (Port, error) {
	p, err := parsePort(s)
	if err != nil {
		return Port{}, fmt.Errorf("publish %q: %w", s, err)
	}
	return p, nil
}

func parsePort(s string) (p Port, err error) {
	s, p.Proto, _ = strings.Cut(s, "/")
	if p.Proto == "" {
		p.Proto = "tcp"
	}
	if p.Proto != "tcp" && p.Proto != "udp" {
		return p, errors.New("the protocol is neither tcp nor udp")
	}
	rest, guest := "", s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		rest, guest = s[:i], s[i+1:]
	}
	if p.Guest, err = portNumber(guest); err != nil || p.Guest == 0 {
		return p, errors.New("the guest's port is not 1 to 65535")
	}
	host := rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host = rest[i+1:]
		ip := strings.TrimSuffix(strings.TrimPrefix(rest[:i], "["), "]")
		if p.IP, err = netip.ParseAddr(ip); err != nil {
			return p, errors.New("not an IP address")
		}
	}
	if host != "" {
		if p.Host, err = portNumber(host); err != nil {
			return p, errors.New("the host's port is not 0 to 65535")
		}
	}
	return p, nil
}

func portNumber(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err
}
