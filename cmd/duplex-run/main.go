// Command duplex-run is `duplex run --container` alone, of images that need no tar
// reader. `make build` fuses it into bin/duplex, where it is entered for a `run` with
// --container among its arguments; for all that it cannot do it becomes the whole.
package main

import (
	"os"

	"github.com/duplex-run/duplex/container/inside"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/sysmon"
)

func main() {
	inside.Main()
	sysmon.Calm()
	os.Exit(runcli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
