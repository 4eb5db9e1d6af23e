package seccomp_test

import (
	"bytes"
	"testing"

	"github.com/duplex-run/duplex/container/seccomp"
	"github.com/duplex-run/duplex/container/seccomp/compiler"
)

// default.bpf is what the compiler makes of the profile in go.mod; the compiler
// has its own tests.
func TestDefaultIsUpToDate(t *testing.T) {
	var caps []string
	for _, c := range seccomp.DefaultCaps {
		caps = append(caps, c.Name)
	}
	want, err := compiler.Default(caps)
	if err != nil {
		t.Fatal(err)
	}
	if got := seccomp.Default(); !bytes.Equal(got, want) {
		t.Errorf("default.bpf holds %d bytes that are not the compiler's %d: run go generate ./container/seccomp", len(got), len(want))
	}
}

func TestDefaultCapSet(t *testing.T) {
	if got := seccomp.DefaultCapSet(); got != 0xa80425fb { // CapEff in a docker container
		t.Errorf("%#x", got)
	}
}
