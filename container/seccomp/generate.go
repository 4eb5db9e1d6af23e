//go:build ignore

// This program writes default.bpf and default.profile.
package main

import (
	"errors"
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
	prog, text, err := compiler.Default(caps)
	if err != nil {
		log.Fatal(err)
	}
	err = errors.Join(os.WriteFile("default.bpf", prog, 0o644), os.WriteFile("default.profile", text, 0o644))
	if err != nil {
		log.Fatal(err)
	}
}
