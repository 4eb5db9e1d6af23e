package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Renames anywhere on the host make single lookups of ".." fail; the caller does
// not see it.
func TestOpenAtBesideRenames(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	one := filepath.Join(t.TempDir(), "one")
	other := one + "other"
	if err := os.WriteFile(one, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := errors.Join(os.Rename(one, other), os.Rename(other, one)); err != nil {
				stopped <- err
				return
			}
		}
	}()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	long := strings.Repeat("a/b/../../", 30) // the longer it takes, the likelier it is disturbed
	for range 3000 {
		f, err := OpenAt(root, long, how)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}
