package container

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/netif"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/network/proxy"
	"github.com/duplex-run/duplex/network/user"
)

// Network is the network of a container. The zero Network is loopback alone.
type Network struct {
	Mode NetworkMode
	// Publish are ports of the host that lead to the container, with NetworkUser
	// and NetworkBridge.
	Publish []proxy.Port
}

// NetworkMode names a kind of network.
type NetworkMode string

// The kinds of networks.
const (
	NetworkNone NetworkMode = "" // loopback alone
	// NetworkHost is the host's: the container has no network namespace.
	NetworkHost NetworkMode = "host"
	// NetworkUser is package network/user behind a TAP device of the container's
	// namespace. It needs no rights.
	NetworkUser NetworkMode = "user"
)

// network is the network of a run under way; the zero network is none.
type network struct {
	mode  NetworkMode
	stack *user.Stack
}

// startNetwork makes what a network has on the host.
func startNetwork(n Network) (_ *network, err error) {
	out := &network{mode: n.Mode}
	if n.Mode != NetworkUser {
		return out, nil
	}
	if out.stack, err = user.New(user.Config{}); err != nil {
		return nil, err
	}
	for _, p := range n.Publish {
		if _, err := out.stack.Publish(p); err != nil {
			return nil, errors.Join(err, out.close())
		}
	}
	return out, nil
}

// setup is what init does of it.
func (n *network) setup(spec workload.Spec) (handshake.Network, error) {
	hostname := launch.Hostname(spec)
	switch n.mode {
	case NetworkHost:
		return hostNames()
	case NetworkUser:
		cfg := n.stack.Config()
		c := &netif.Config{Addresses: []netip.Prefix{cfg.Guest}, Gateways: []netip.Addr{cfg.Gateway}, DNS: []netip.Addr{cfg.DNS}, MTU: cfg.MTU}
		return handshake.Network{TAP: true, Config: c, Hosts: netif.Hosts(hostname, c), Resolv: netif.ResolvConf(c)}, nil
	}
	return handshake.Network{}, nil
}

// hostNames are copies of the host's own files, as docker makes them for its
// network "host"; what is missing is left as the image has it.
func hostNames() (handshake.Network, error) {
	out := handshake.Network{Shared: true}
	for path, text := range map[string]*string{"/etc/hosts": &out.Hosts, "/etc/resolv.conf": &out.Resolv} {
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return out, fmt.Errorf("read the host's %s: %w", path, err)
		}
		*text = string(data)
	}
	return out, nil
}

// attach takes what init made of it.
func (n *network) attach(c handshake.Conn) error {
	if n.mode != NetworkUser {
		return nil
	}
	m, err := c.Expect(handshake.KindNetwork)
	if err != nil {
		return err
	}
	if m.File == nil {
		return &handshake.StepError{Step: "set up the network", Err: errors.New("init sent no TAP device")}
	}
	return n.stack.Attach(m.File)
}

// close undoes startNetwork.
func (n *network) close() error {
	if n == nil || n.stack == nil {
		return nil
	}
	return n.stack.Close()
}

// flags are the namespaces to make for it.
func (n *network) flags() uintptr {
	if n.mode == NetworkHost {
		return 0
	}
	return unix.CLONE_NEWNET
}
