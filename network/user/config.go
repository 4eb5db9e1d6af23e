package user

import (
	"errors"
	"fmt"
	"net/netip"
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
