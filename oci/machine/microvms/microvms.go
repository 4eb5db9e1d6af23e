// Package microvms gives package oci its machines.
package microvms

import (
	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/microvm"
	"github.com/duplex-run/duplex/oci/machine"
	"github.com/duplex-run/duplex/oci/nic"
)

// Use has this program run machines as microVMs.
func Use() {
	machine.New, machine.Connect, machine.Disconnect = newRunner, nic.Connect, nic.Disconnect
}

func newRunner(b machine.Boot) workload.Runner {
	r := microvm.Runner{Kernel: b.Kernel, Initrd: b.Initrd, Version: b.Version, Talk: b.Talk}
	switch i := b.Interface; {
	case b.User:
		r.Network = &microvm.Network{}
	case i != nil:
		r.Network = &microvm.Network{
			Tap: i.Tap.Name(), File: i.Tap, MAC: i.MAC,
			Guest: &agentproto.Network{Addresses: i.Addresses, Gateways: i.Gateways, MTU: i.MTU},
		}
	}
	return r
}
