package cli

import (
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/container"
	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/microvm"
	"github.com/duplex-run/duplex/network/bridge"
	"github.com/duplex-run/duplex/network/proxy"
	"github.com/duplex-run/duplex/network/user"
)

// networkFlags are the flags of a run's network.
type networkFlags struct {
	network string
	publish []string
}

func (f *networkFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.network, "network", "none", "network: none; user, which needs no rights; bridge, for root; host, the host's own (containers); or tap=NAME,address=PREFIX[,gateway=IP][,dns=IP] (microVMs); of a microVM also mac=ADDRESS")
	fs.StringVar(&f.network, "net", "none", "")
	_ = fs.MarkHidden("net") // docker's other name of it
	fs.StringArrayVarP(&f.publish, "publish", "p", nil, "lead `[IP:]PORT:GUESTPORT[/udp]` of the host inside, with --network user or bridge")
}

// networks is the network that was asked for, for either isolation.
type networks struct {
	vm        *microvm.Network // nil for none
	container container.Network
}

// parse checks the flags against the isolation.
func (f *networkFlags) parse(a *app, iso workload.Isolation) (n networks, err error) {
	ports, err := f.ports(a)
	if err != nil {
		return n, err
	}
	if iso == workload.Container {
		n.container, err = f.containerNetwork(a, ports)
		return n, err
	}
	switch f.network {
	case "none":
		return n, nil
	case "host":
		return n, a.usage("--network=host: a microVM has a kernel of its own, and no use of the host's network; --network user leads there")
	}
	kind, bridged := f.network, false
	if rest, ok := strings.CutPrefix(kind, "bridge"); ok && (rest == "" || rest[0] == ',') {
		kind, bridged = "user"+rest, true // options are the same
	}
	nic, err := parseNet(kind)
	if err != nil {
		return n, a.usage("--network=%s: %v, bridge or none", f.network, err)
	}
	if nic.Tap != "" && len(f.publish) > 0 {
		return n, a.usage("--publish needs --network user or bridge")
	}
	nic.Publish, nic.Bridge = f.publish, bridged
	n.vm = &nic
	return n, nil
}

// ports are the published ones.
func (f *networkFlags) ports(a *app) (ports []proxy.Port, err error) {
	if len(f.publish) > 0 && (f.network == "none" || f.network == "host") {
		return nil, a.usage("--publish needs --network user or bridge")
	}
	for _, text := range f.publish {
		p, err := proxy.ParsePort(text)
		if err != nil {
			return nil, a.usage("%v: want [IP:]PORT:GUESTPORT[/udp]", err)
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func (f *networkFlags) containerNetwork(a *app, ports []proxy.Port) (container.Network, error) {
	n := container.Network{Publish: ports}
	switch {
	case f.network == "none":
	case f.network == "host" || f.network == "user" || f.network == "bridge":
		n.Mode = container.NetworkMode(f.network)
	case strings.HasPrefix(f.network, "tap="):
		return n, a.usage("--network=%s: TAP interfaces are for microVMs", f.network)
	default:
		return n, a.usage("--network=%s: want none, user, bridge or host", f.network)
	}
	return n, nil
}

// hostNetworkWarning says what --network host gives up.
const hostNetworkWarning = "--network host: no network namespace: the command reaches what listens on the host's loopback and its abstract Unix sockets, and can take any of its ports"

// announce says what a container with the host's network gives up. It has the
// host's name then, as with docker, unless it was given one.
func (f *runFlags) announce(a *app, n container.Network) {
	if n.Mode != container.NetworkHost {
		return
	}
	a.warn(hostNetworkWarning)
	if name, err := os.Hostname(); err == nil && f.hostname == "" {
		f.hostname = name
	}
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
