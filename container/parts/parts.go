// Package parts is what package container asks of networks and of the compiler of
// filters, apart from them: a program that has no use for most of it does not link a
// network stack, netlink and nftables, and starts the sooner.
package parts

import (
	"net/netip"
	"os"
	"time"

	"github.com/duplex-run/duplex/internal/netif"
	"github.com/duplex-run/duplex/network/proxy"
)

// Stack is a user-mode network; see package network/user.
type Stack interface {
	// Interface is what the container's interface is set up with.
	Interface() netif.Config
	Publish(p proxy.Port) (netip.AddrPort, error)
	// Attach takes the container's TAP device.
	Attach(tap *os.File) error
	Flush(limit time.Duration)
	Close() error
}

// Port is an interface on the bridge; see package network/bridge.
type Port interface {
	Interface() netif.Config
	Publish(p proxy.Port) (netip.AddrPort, error)
	Close() error
}

// What package all sets, all or nothing.
var (
	// NewStack makes a user-mode network.
	NewStack func() (Stack, error)
	// CheckBridge says what keeps the caller from JoinBridge, as far as that is known
	// before.
	CheckBridge func() error
	// JoinBridge connects the network namespace of process pid, by an interface of
	// that name.
	JoinBridge func(pid int, device string) (Port, error)
	// CompileFilter is docker's filter for a set of capabilities.
	CompileFilter func(caps []string) ([]byte, error)
)
