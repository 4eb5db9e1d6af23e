package user

import (
	"net/netip"
	"testing"
)

func TestConfig(t *testing.T) {
	var c Config
	if err := c.Complete(); err != nil {
		t.Fatal(err)
	}
	if c.Guest.String() != "10.0.2.15/24" || c.Gateway.String() != "10.0.2.2" || c.DNS.String() != "10.0.2.3" || c.MTU != 1500 {
		t.Errorf("defaults %+v", c)
	}
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	for name, c := range map[string]Config{
		"IPv6":                    {Guest: prefix("fd00::2/64")},
		"no room":                 {Guest: prefix("10.0.0.1/30")},
		"gateway elsewhere":       {Gateway: addr("10.0.3.2")},
		"gateway is the guest":    {Gateway: addr("10.0.2.15")},
		"gateway is DNS":          {Gateway: addr("10.0.2.3")},
		"guest is the network":    {Guest: prefix("10.0.2.0/24")},
		"IPv6 gateway":            {Gateway: addr("fd00::2")},
		"tiny MTU":                {MTU: 575},
		"huge MTU":                {MTU: 65522},
		"negative bound":          {MaxTCP: -1},
		"default gateway in use":  {Guest: prefix("10.0.2.2/24")},
		"default resolver in use": {Guest: prefix("10.0.2.3/24")},
	} {
		if s, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
			_ = s.Close()
		}
	}
}
