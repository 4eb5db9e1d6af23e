package user

import (
	"net/netip"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/network/proxy"
)

// GuestPlan is what the guest's interface on a Stack of c is set up with, but its
// MAC address.
func GuestPlan(c Config) (agentproto.Network, error) {
	if err := c.Complete(); err != nil {
		return agentproto.Network{}, err
	}
	return agentproto.Network{
		Addresses: []netip.Prefix{c.Guest}, Gateways: []netip.Addr{c.Gateway}, DNS: []netip.Addr{c.DNS}, MTU: c.MTU,
	}, nil
}

// PublishPort is Publish for a port in the notation of proxy.ParsePort.
func (s *Stack) PublishPort(text string) error { return proxy.PublishText(text, s.Publish) }
