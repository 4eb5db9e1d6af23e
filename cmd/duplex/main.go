// Command duplex runs one image in a microVM and in a container, and compares
// them. Everything it does is in internal/cli.
package main

import (
	"os"

	"github.com/duplex-run/duplex/container"
	"github.com/duplex-run/duplex/internal/cli"
	"github.com/duplex-run/duplex/internal/hostcheck"
	"github.com/duplex-run/duplex/microvm"
	"github.com/duplex-run/duplex/oci"
	"github.com/duplex-run/duplex/oci/machine/microvms"
)

func main() {
	microvm.Init()
	microvms.Use()
	cli.Link()
	oci.Init()
	hostcheck.Child()
	container.Init()
	os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
