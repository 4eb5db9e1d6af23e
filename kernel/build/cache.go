package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/workload"
)

// otherCache is the remedy when the cache is no place to build in.
const otherCache = "DUPLEX_CACHE names another place for the cache"

// checkCache refuses a cache that another user made, before anything is
// downloaded: what root left in a user's cache, that user could neither use nor
// remove.
func checkCache() error {
	err := cmp.Or(checkDir("kernels"), checkDir("kernel-build"), checkDir("sources"))
	if err != nil {
		return &workload.Error{Op: "open the cache of kernels", Err: err, Remedy: otherCache}
	}
	return nil
}

// checkDir checks the directory name of the cache, and the cache's own.
func checkDir(name string) error {
	path, err := hostdir.Cache(name, "any")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if strings.ContainsAny(dir, " \t\n:") {
		return fmt.Errorf("%s: Linux is not built in a directory with a space or colon in its name", dir)
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := hostdir.Owned(d); err != nil {
			return err
		}
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("write to %s: %w", dir, err)
	}
	return nil
}

// Bytes that a build takes: the unpacked source, and what is made of it.
const (
	roomForSource = 1800 << 20
	roomForBuild  = 700 << 20
)

// room checks that the file system of dir has them.
func (b *builder) room(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	need, free := uint64(roomForBuild), st.Bavail*uint64(st.Bsize)
	if b.source.packed {
		need += roomForSource
	}
	if free >= need {
		return nil
	}
	return &workload.Error{Op: buildOp, Err: fmt.Errorf("%s has %d MiB free, a build takes %d", dir, free>>20, need>>20),
		Remedy: otherCache}
}

// diskFull makes of a failure for lack of room in dir one that says so. A compiler's
// ENOSPC is known by its message, which is in English: see environ.
func diskFull(ctx context.Context, dir string, err error) error {
	if err == nil || ctx.Err() != nil ||
		!errors.Is(err, unix.ENOSPC) && !strings.Contains(err.Error(), "No space left on device") {
		return err
	}
	return &workload.Error{Op: buildOp, Err: fmt.Errorf("the file system of %s is full: %w", dir, err), Remedy: otherCache}
}

// sweep removes what killed builds of other kernels left in root.
func sweep(root string) {
	entries, _ := os.ReadDir(root) // what cannot be removed now is tried again by the next
	for _, e := range entries {
		dir, err := os.Open(filepath.Join(root, e.Name()))
		if err != nil {
			continue
		}
		if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(filepath.Join(dir.Name(), workName))
		}
		_ = dir.Close()
	}
}
