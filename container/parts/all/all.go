// Package all gives package container the networks, and the compiler of filters.
package all

import (
	"net/netip"

	"github.com/duplex-run/duplex/container/parts"
	"github.com/duplex-run/duplex/container/seccomp/compiler"
	"github.com/duplex-run/duplex/internal/netif"
	"github.com/duplex-run/duplex/network/bridge"
	"github.com/duplex-run/duplex/network/user"
)

// Use has this program's containers have them.
func Use() {
	parts.NewStack, parts.CheckBridge, parts.JoinBridge, parts.CompileFilter = newStack, bridge.Check, joinBridge, compile
}

type stack struct{ *user.Stack }

func newStack() (parts.Stack, error) {
	s, err := user.New(user.Config{})
	if err != nil {
		return nil, err
	}
	return stack{s}, nil
}

func (s stack) Interface() netif.Config {
	c := s.Config()
	return netif.Config{Addresses: []netip.Prefix{c.Guest}, Gateways: []netip.Addr{c.Gateway}, DNS: []netip.Addr{c.DNS}, MTU: c.MTU}
}

type port struct{ *bridge.Port }

func joinBridge(pid int, device string) (parts.Port, error) {
	p, err := bridge.Join(pid, device)
	if err != nil {
		return nil, err
	}
	return port{p}, nil
}

func (p port) Interface() netif.Config { return p.Config }

func compile(caps []string) ([]byte, error) {
	program, _, err := compiler.Default(caps)
	return program, err
}
