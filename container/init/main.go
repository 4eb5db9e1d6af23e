// Command init is the first process of a container and the one that becomes
// its workload. duplex carries it and starts it from sealed memory; it is of no
// use by itself.
package main

import (
	"os"

	"github.com/duplex-run/duplex/container/inside"
	"github.com/duplex-run/duplex/internal/workload"
)

func main() {
	inside.Main()
	_, _ = os.Stderr.WriteString("this program is started by duplex\n")
	os.Exit(workload.StatusError)
}
