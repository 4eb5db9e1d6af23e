package container

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/parts"
	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/netif"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/network/proxy"
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
	// NetworkBridge is package network/bridge. It needs CAP_NET_ADMIN.
	NetworkBridge NetworkMode = "bridge"
)

// flushTime bounds how long the end of a container waits for what it sent last.
const flushTime = 200 * time.Millisecond

// network is the network of a run under way; the zero network is none.
type network struct {
	Network
	stack parts.Stack
	port  parts.Port
}

// linked says whether this program has what n takes; see package parts.
func (n Network) linked() bool {
	return n.Mode != NetworkUser && n.Mode != NetworkBridge || parts.NewStack != nil
}

// startNetwork makes what a network has on the host.
func startNetwork(n Network) (_ *network, err error) {
	out := &network{Network: n}
	if !n.linked() {
		return nil, errNotLinked
	}
	switch n.Mode {
	case NetworkBridge:
		return out, parts.CheckBridge()
	case NetworkUser:
	default:
		return out, nil
	}
	if out.stack, err = parts.NewStack(); err != nil {
		return nil, err
	}
	for _, p := range n.Publish {
		if _, err := out.stack.Publish(p); err != nil {
			return nil, errors.Join(err, out.close())
		}
	}
	return out, nil
}

// setup makes what a network has in the namespace of init, and returns what init
// does of it.
func (n *network) setup(init int, spec workload.Spec) (_ handshake.Network, err error) {
	hostname := launch.Hostname(spec)
	switch n.Mode {
	case NetworkHost:
		return hostNames()
	case NetworkUser:
		out := interfaceUp(n.stack.Interface(), hostname)
		out.TAP = true
		return out, nil
	case NetworkBridge:
		if n.port, err = parts.JoinBridge(init, handshake.NetworkDevice); err != nil {
			return handshake.Network{}, err
		}
		for _, p := range n.Publish {
			if _, err := n.port.Publish(p); err != nil {
				return handshake.Network{}, err
			}
		}
		return interfaceUp(n.port.Interface(), hostname), nil
	}
	return handshake.Network{}, nil
}

// interfaceUp is an interface that is there, and the names that belong to it.
func interfaceUp(c netif.Config, hostname string) handshake.Network {
	return handshake.Network{Config: &c, Hosts: netif.Hosts(hostname, &c), Resolv: netif.ResolvConf(&c)}
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
	if n.Mode != NetworkUser {
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

// close undoes startNetwork and setup.
func (n *network) close() (err error) {
	if n == nil {
		return nil
	}
	if n.stack != nil {
		n.stack.Flush(flushTime) // the descriptor of the TAP device kept its namespace
		err = n.stack.Close()
	}
	if n.port != nil {
		err = errors.Join(err, n.port.Close())
	}
	return err
}

// flags are the namespaces to make for it.
func (n *network) flags() uintptr {
	if n.Mode == NetworkHost {
		return 0
	}
	return unix.CLONE_NEWNET
}
