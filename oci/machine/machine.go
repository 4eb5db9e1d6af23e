// Package machine is what package oci asks of microVMs, apart from them: a program
// that only makes containers does not link a monitor, and starts the sooner.
package machine

import (
	"net"
	"net/netip"
	"os"

	"github.com/duplex-run/duplex/internal/workload"
)

// Boot is how a machine is made.
type Boot struct {
	Kernel, Initrd, Version string
	// User is the user-mode network; Interface another one, or nil.
	User      bool
	Interface *Interface
	// Talk gets the stream to the runtime in the guest.
	Talk func(*os.File)
}

// Interface is what a machine is connected to.
type Interface struct {
	Name      string
	MAC       net.HardwareAddr
	MTU       int
	Addresses []netip.Prefix
	Gateways  []netip.Addr // of default routes
	Tap       *os.File     // attached to the TAP device
}

// What package microvms sets, all or nothing.
var (
	// New makes a machine's runner.
	New func(Boot) workload.Runner
	// Connect and Disconnect are package nic's.
	Connect    func(warn func(string)) (*Interface, error)
	Disconnect func() error
)
