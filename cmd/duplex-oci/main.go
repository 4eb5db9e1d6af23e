// Command duplex-oci is `duplex oci` alone. `make build` fuses it into bin/duplex,
// where it is entered for `duplex oci`: it starts in a third of the time that the
// whole of duplex does.
package main

import (
	"os"

	"github.com/duplex-run/duplex/container/inside"
	"github.com/duplex-run/duplex/internal/ocicli"
	"github.com/duplex-run/duplex/internal/sysmon"
)

func main() {
	inside.Main()
	sysmon.Calm()
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "oci" {
		args = args[1:]
	}
	os.Exit(ocicli.Main(args))
}
