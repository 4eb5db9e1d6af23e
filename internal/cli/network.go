package cli

import (
	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/microvm"
	"github.com/duplex-run/duplex/network/user"
)

// userNetwork makes the user-mode network of a microVM's interface.
func userNetwork() (microvm.UserNetwork, error) {
	s, err := user.New(user.Config{})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// userNetworkPlan is what such an interface is set up with.
func userNetworkPlan() (agentproto.Network, error) { return user.GuestPlan(user.Config{}) }
