// Command monitor is the process that runs a microVM's guest, in its jail. duplex
// carries it and starts it; it is of no use by itself.
//
// It is the part of package microvm that a monitor needs, so that it starts sooner
// than duplex would once more: what it links is what it initializes and maps.
package main

import (
	"os"

	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/microvm"
)

func main() {
	microvm.Init()
	_, _ = os.Stderr.WriteString("this program is started by duplex\n")
	os.Exit(workload.StatusError)
}
