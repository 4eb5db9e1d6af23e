// Command probe looks at the place it runs in from inside and prints what it
// saw as one JSON document (compare/isolation.Observation).
//
// `duplex compare` runs it once on each side, on the same image and with the
// same flags as the workload. It reads, it opens for writing without writing,
// and it tries what an isolated program should perhaps not be able to do. Every
// attempt is harmless and undone, and is made by a child process (this program
// again, with the attempt's name as its argument), so that a seccomp filter
// that kills ends the attempt and not the probe. It needs nothing of the image:
// no shell, no library, no writable root.
//
// To add an attempt, write a function that returns the errno of the call and
// put it into the table in attempts.go.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) == 2 {
		os.Exit(runAttempt(os.Args[1]))
	}
	o := observe()
	o.Attempts = tryAll()
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		fmt.Fprintf(os.Stderr, "probe: write the document: %v\n", err)
		os.Exit(1)
	}
}
