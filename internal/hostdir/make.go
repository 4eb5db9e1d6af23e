package hostdir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const partSuffix = ".part"

// Make makes the cache file path, unless it is there, by calling write with an
// empty file that is renamed to path once write returned nil. However many
// processes ask for the same path at once, one writes and the others wait. What
// a maker that was killed left behind goes with the next Make in the directory.
func Make(ctx context.Context, path string, write func(*os.File) error) error {
	for {
		if _, err := os.Lstat(path); err == nil {
			return nil
		}
		done, err := makeOnce(ctx, path, write)
		if err != nil {
			return fmt.Errorf("make %s: %w", path, err)
		}
		if done {
			return nil
		}
	}
}

// makeOnce reports false when another maker got there first.
func makeOnce(ctx context.Context, path string, write func(*os.File) error) (bool, error) {
	part := path + partSuffix
	f, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	if err := Lock(ctx, f); err != nil {
		return false, err
	}
	if !sameFile(f, part) {
		return false, nil // renamed or removed while we waited
	}
	sweepParts(filepath.Dir(path), part)
	err = f.Truncate(0)
	if err == nil {
		err = write(f)
	}
	if err == nil {
		err = f.Sync() // a cache file is never looked into again: it must be whole
	}
	if err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		return false, errors.Join(err, os.Remove(part))
	}
	return true, nil
}

// Lock takes an exclusive flock(2) on f; waiting for it ends with ctx.
func Lock(ctx context.Context, f *os.File) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock %s: %w", f.Name(), ctx.Err())
		case <-time.After(wait):
		}
	}
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// sweepParts removes the part files in dir, other than ours, that nobody holds.
func sweepParts(dir, ours string) {
	parts, err := filepath.Glob(filepath.Join(dir, "*"+partSuffix))
	if err != nil {
		return
	}
	for _, part := range parts {
		if part == ours {
			continue
		}
		f, err := os.Open(part)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && sameFile(f, part) {
			_ = os.Remove(part)
		}
		_ = f.Close()
	}
}
