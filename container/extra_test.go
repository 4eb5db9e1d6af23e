package container

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/duplex-run/duplex/internal/workload"
)

// A run can bring its own command, larger than a socket buffer, also onto a
// read-only root and over a file of the image; the image stays as it was.
func TestExtraFiles(t *testing.T) {
	tree := newTree(t)
	work := append([]byte("#!/bin/work echo\n"), make([]byte, 7<<20)...)
	old := filepath.Join(tree, "work")
	must(t, os.WriteFile(old, []byte("of the image"), 0o644))
	for _, readOnly := range []bool{false, true} {
		spec := newSpec(tree)
		spec.ReadOnly = readOnly
		spec.Extra = []workload.ExtraFile{{Path: "/work", Mode: 0o755, Data: work}}
		spec.Argv = []string{"/work", "exit", "42"}
		if r := runIt(t, spec); r.exit.Status() != 0 || r.out != "/work\nexit\n42\n" {
			t.Errorf("read-only %v: %v, %q, %q", readOnly, r.exit, r.out, r.err)
		}
	}
	if b, err := os.ReadFile(old); err != nil || string(b) != "of the image" {
		t.Errorf("the image's file is now %q, %v", b, err)
	}
}
