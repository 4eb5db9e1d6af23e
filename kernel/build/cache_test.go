package build

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/testutil/listing"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/kernel"
)

// wantNoKernel fails when there is a kernel to be used.
func wantNoKernel(t *testing.T) {
	t.Helper()
	if list, err := kernel.List(); err != nil || len(list) > 0 {
		t.Errorf("installed %v, %v", list, err)
	}
}

// A disk that fills up while there is compiled, or installed, ends the build with
// what to do; everything written is given back, and there is no kernel.
func TestFullDiskEndsTheBuild(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	for name, want := range map[string]string{"fills": "No space left on device", "nearly": "install vmlinux"} {
		t.Run(name, func(t *testing.T) {
			cache := machine(t)
			dir := tree(t, map[string]string{name: "", "vmlinux": smallKernel(t) + strings.Repeat("kernel", 1<<20)})
			err := listing.OnSmallDisk(roomForBuild+1<<20, cache, func() error {
				_, err := Build(t.Context(), Options{Source: dir}, nil)
				var werr *workload.Error
				if !errors.As(err, &werr) || !strings.Contains(err.Error(), cache) || !strings.Contains(err.Error(), "is full") ||
					!strings.Contains(err.Error(), want) || werr.Remedy != otherCache {
					t.Errorf("got %v, want %q and that the disk is full", err, want)
				}
				wantClean(t, cache)
				wantNoKernel(t)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestSmallDiskIsRefusedAtOnce(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	cache := machine(t)
	dir := tree(t, nil)
	err := listing.OnSmallDisk(roomForBuild-1<<20, cache, func() error {
		_, err := Build(t.Context(), Options{Source: dir}, nil)
		var werr *workload.Error
		if !errors.As(err, &werr) || !strings.Contains(err.Error(), "699 MiB free, a build takes 700") || werr.Remedy != otherCache {
			t.Errorf("got %v", err)
		}
		if n := runs(cache); n > 0 {
			t.Errorf("built %d times", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCacheOfAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives a directory away")
	}
	for _, name := range []string{"", "kernels", "kernel-build", "sources"} {
		t.Run("cache/"+name, func(t *testing.T) {
			theirs := filepath.Join(machine(t), name)
			if err := os.MkdirAll(theirs, 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(theirs, 65534, 65534); err != nil {
				t.Fatal(err)
			}
			_, err := Build(t.Context(), Options{Source: tree(t, nil)}, nil)
			var werr *workload.Error
			if !errors.Is(err, hostdir.ErrForeign) || !strings.Contains(err.Error(), theirs) || !errors.As(err, &werr) || werr.Remedy != otherCache {
				t.Errorf("got %v", err)
			}
			wantNoKernel(t)
		})
	}
}

// make cannot tell such a name from several.
func TestCacheWithASpaceIsRefused(t *testing.T) {
	cache := filepath.Join(machine(t), "of mine")
	t.Setenv("DUPLEX_CACHE", cache)
	_, err := Build(t.Context(), Options{Source: tree(t, nil)}, nil)
	var werr *workload.Error
	if !errors.As(err, &werr) || !strings.Contains(err.Error(), "space or colon") || werr.Remedy != otherCache {
		t.Errorf("got %v", err)
	}
}
