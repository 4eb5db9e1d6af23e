package cli

import (
	"os"
	"strings"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/microvm"
	"github.com/duplex-run/duplex/network/bridge"
	"github.com/duplex-run/duplex/network/user"
)

// CheckNetwork implements runcli.Whole.
func (a *app) CheckNetwork(f *runcli.NetworkFlags) error {
	_, err := a.machineNetwork(f)
	return err
}

// machineNetwork is the network of a microVM, nil for none.
func (a *app) machineNetwork(f *runcli.NetworkFlags) (*microvm.Network, error) {
	switch f.Network {
	case "none":
		return nil, nil
	case "host":
		return nil, a.Usage("--network=host: a microVM has a kernel of its own, and no use of the host's network; --network user leads there")
	}
	kind, bridged := f.Network, false
	if rest, ok := strings.CutPrefix(kind, "bridge"); ok && (rest == "" || rest[0] == ',') {
		kind, bridged = "user"+rest, true // options are the same
	}
	nic, err := parseNet(kind)
	if err != nil {
		return nil, a.Usage("--network=%s: %v, bridge or none", f.Network, err)
	}
	if nic.Tap != "" && len(f.Publish) > 0 {
		return nil, a.Usage("--publish needs --network user or bridge")
	}
	nic.Publish, nic.Bridge = f.Publish, bridged
	return &nic, nil
}

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

// joinBridge puts a microVM on the bridge.
func joinBridge() (microvm.BridgePort, *os.File, error) {
	p, f, err := bridge.JoinTAP()
	if err != nil {
		return nil, nil, err
	}
	return p, f, nil
}
