package runcli

import (
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/container"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/network/proxy"
)

// NetworkFlags are the flags of a run's network.
type NetworkFlags struct {
	Network string
	Publish []string
}

func (f *NetworkFlags) Register(fs *pflag.FlagSet) {
	fs.StringVar(&f.Network, "network", "none", "network: none; user, which needs no rights; bridge, for root; host, the host's own (containers); or tap=NAME,address=PREFIX[,gateway=IP][,dns=IP] (microVMs); of a microVM also mac=ADDRESS")
	fs.StringVar(&f.Network, "net", "none", "")
	_ = fs.MarkHidden("net") // docker's other name of it
	cmdline.ListVar(fs, &f.Publish, "publish", "p", "lead `[IP:]PORT:GUESTPORT[/udp]` of the host inside, with --network user or bridge")
}

// Parse checks the flags against the isolation, and returns a container's network.
func (f *NetworkFlags) Parse(a *App, iso workload.Isolation) (container.Network, error) {
	ports, err := f.ports(a)
	if err != nil {
		return container.Network{}, err
	}
	if iso == workload.VM {
		return container.Network{}, a.Whole.CheckNetwork(f)
	}
	return f.containerNetwork(a, ports)
}

// ports are the published ones.
func (f *NetworkFlags) ports(a *App) (ports []proxy.Port, err error) {
	if len(f.Publish) > 0 && (f.Network == "none" || f.Network == "host") {
		return nil, a.Usage("--publish needs --network user or bridge")
	}
	for _, text := range f.Publish {
		p, err := proxy.ParsePort(text)
		if err != nil {
			return nil, a.Usage("%v: want [IP:]PORT:GUESTPORT[/udp]", err)
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func (f *NetworkFlags) containerNetwork(a *App, ports []proxy.Port) (container.Network, error) {
	n := container.Network{Publish: ports}
	switch {
	case f.Network == "none":
	case f.Network == "host" || f.Network == "user" || f.Network == "bridge":
		n.Mode = container.NetworkMode(f.Network)
	case strings.HasPrefix(f.Network, "tap="):
		return n, a.Usage("--network=%s: TAP interfaces are for microVMs", f.Network)
	default:
		return n, a.Usage("--network=%s: want none, user, bridge or host", f.Network)
	}
	return n, nil
}

// hostNetworkWarning says what --network host gives up.
const hostNetworkWarning = "--network host: no network namespace: the command reaches what listens on the host's loopback and its abstract Unix sockets, and can take any of its ports"

// announce says what a container with the host's network gives up. It has the
// host's name then, as with docker, unless it was given one.
func (f *Flags) announce(a *App, n container.Network) {
	if n.Mode != container.NetworkHost {
		return
	}
	a.Warn(hostNetworkWarning)
	if name, err := os.Hostname(); err == nil && f.Hostname == "" {
		f.Hostname = name
	}
}
