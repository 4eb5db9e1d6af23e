//go:build ignore

// This program writes default.bpf.
package main

import (
	"log"
	"os"

	"github.com/duplex-run/duplex/container/seccomp"
	"github.com/duplex-run/duplex/container/seccomp/compiler"
)

func main() {
	var caps []string
	for _, c := range seccomp.DefaultCaps {
		caps = append(caps, c.Name)
	}
	prog, err := compiler.Default(caps)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("default.bpf", prog, 0o644); err != nil {
		log.Fatal(err)
	}
}
