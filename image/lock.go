package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errLocked reports that another process holds the lock.
var errLocked = errors.New("in use by another duplex process")

// lock is a held flock(2) on a file. It goes with the process.
type lock struct{ file *os.File }

// tryLock takes path's lock, unix.LOCK_SH or LOCK_EX, or fails with errLocked.
func tryLock(path string, how int) (*lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("%s: %w", path, errLocked)
			}
			return nil, &os.PathError{Op: "flock", Path: path, Err: err}
		}
		// Whoever removes an image removes its lock file too: a lock on a
		// file that is no longer at path protects nothing.
		if sameFile(f, path) {
			return &lock{f}, nil
		}
		_ = f.Close()
	}
}

func sameFile(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// waitLock is tryLock that waits its turn, polling: a blocking flock(2) could
// not be cancelled.
func waitLock(ctx context.Context, path string, how int) (*lock, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		l, err := tryLock(path, how)
		if !errors.Is(err, errLocked) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (l *lock) release() error { return l.file.Close() }
