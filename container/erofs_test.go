package container

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/image/erofs"
	"github.com/duplex-run/duplex/internal/workload"
)

// The image's EROFS file is the lower layer, with no tree unpacked: mounted as
// a file or, before Linux 6.12, through a loop device. Without root it cannot
// be, and the error says what is needed.
func TestEROFS(t *testing.T) {
	tree := newTree(t)
	must(t, os.Chmod(tree, 0o711))
	path := filepath.Join(t.TempDir(), "rootfs.erofs")
	f, err := os.Create(path)
	must(t, err)
	_, err = erofs.Pack(t.Context(), f, erofs.Source{Path: tree, At: "/"})
	must(t, errors.Join(err, f.Close()))

	spec := newSpec(tree, "view")
	spec.Rootfs = workload.Rootfs{EROFS: path}
	if NeedsTree() {
		_, err := tryRun(t, spec, nil)
		var we *workload.Error
		if !errors.As(err, &we) || !strings.Contains(err.Error(), "tree") {
			t.Errorf("%v, want an error about the missing tree", err)
		}
		return
	}
	v := seen(t, spec)
	checkMounts(t, v.Mounts)
	if r := runIt(t, withArgs(spec, "stat", "/")); r.out != "711\n" {
		t.Errorf("the root directory's mode is %q", r.out)
	}
	spec.Rootfs.Tree = "/no/such" // not looked at
	if r := runIt(t, withArgs(spec, "exit", "42")); r.exit.Status() != 42 {
		t.Errorf("%v, want 42", r.exit)
	}
}

func withArgs(spec workload.Spec, args ...string) workload.Spec {
	spec.ID = newID()[:24] + testTag
	spec.Argv = append([]string{"work"}, args...)
	return spec
}
