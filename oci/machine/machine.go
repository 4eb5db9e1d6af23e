// Package machine is what package oci asks of microVMs, apart from them: a program
// that only makes containers does not link a monitor, and starts the sooner.
package machine

import (
	"os"

	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/oci/nic"
)

// Boot is how a machine is made.
type Boot struct {
	Kernel, Initrd, Version string
	// User is the user-mode network; Interface another one, or nil.
	User      bool
	Interface *nic.Interface
	// Talk gets the stream to the runtime in the guest.
	Talk func(*os.File)
}

// New makes a machine's runner; package microvms sets it.
var New func(Boot) workload.Runner
