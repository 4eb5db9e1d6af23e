package netif

import (
	"net/netip"
	"slices"
	"strings"
)

// Config is a network interface as plain data.
type Config struct {
	// MAC is the interface's address, as in 02:00:5e:10:00:01. Empty means the only
	// interface there is, beside loopback.
	MAC string `json:"mac,omitempty"`
	// Addresses are the workload's, with their prefix lengths; one at least.
	Addresses []netip.Prefix `json:"addresses"`
	// Gateways are default routes, for each family one at most.
	Gateways []netip.Addr `json:"gateways,omitempty"`
	// DNS are the servers for /etc/resolv.conf, in order. Without any the image's
	// file stays.
	DNS []netip.Addr `json:"dns,omitempty"`
	// Search are domains for /etc/resolv.conf.
	Search []string `json:"search,omitempty"`
	// MTU in bytes, up to 65535; 0 leaves what the device says.
	MTU int `json:"mtu,omitempty"`
}

// Valid says whether c can be used; a nil c, for no interface, can.
func (c *Config) Valid() bool {
	if c == nil {
		return true
	}
	families := map[bool]int{}
	for _, g := range c.Gateways {
		families[g.Is4()]++
	}
	bad := func(p netip.Prefix) bool { return !p.IsValid() || p.Addr().Is4In6() }
	invalid := func(a netip.Addr) bool { return !a.IsValid() || a.Is4In6() }
	return len(c.Addresses) > 0 && !slices.ContainsFunc(c.Addresses, bad) &&
		!slices.ContainsFunc(c.Gateways, invalid) && !slices.ContainsFunc(c.DNS, invalid) &&
		families[true] <= 1 && families[false] <= 1 && c.MTU >= 0 && c.MTU <= 65535
}

// Configure gives the interface with that index its addresses and routes and
// brings it up.
func Configure(index int, c *Config) error {
	link, err := openRoute()
	if err != nil {
		return err
	}
	defer link.close()
	return link.configure(uint32(index), c)
}

// Hosts is the text of /etc/hosts for a workload with that host name, as docker
// writes it for a container with a network.
func Hosts(hostname string, c *Config) string {
	text := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
	for _, a := range c.Addresses {
		text += a.Addr().String() + "\t" + hostname + "\n"
	}
	return text
}

// ResolvConf is the text of /etc/resolv.conf.
func ResolvConf(c *Config) (text string) {
	for _, a := range c.DNS {
		text += "nameserver " + a.String() + "\n"
	}
	if len(c.Search) > 0 {
		text += "search " + strings.Join(c.Search, " ") + "\n"
	}
	return text
}

// onLink says whether a gateway is reached without the network of an address.
func onLink(gateway netip.Addr, c *Config) bool {
	return gateway.IsLinkLocalUnicast() || !slices.ContainsFunc(c.Addresses, func(p netip.Prefix) bool { return p.Contains(gateway) })
}
