package bridge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/network/bridge/state"
)

// lockWait bounds how long another run may make or remove the bridge.
const lockWait = 30 * time.Second

// lock serialises the making and removing of bridge and ports. The directory goes
// with the bridge, so the one that was locked may be gone.
func lock() (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	for {
		f, err := openLock()
		if err != nil {
			return nil, err
		}
		if err := hostdir.Lock(ctx, f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		own, err := f.Stat()
		if now, serr := os.Stat(f.Name()); err == nil && serr == nil && os.SameFile(own, now) {
			return func() { _ = f.Close() }, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

func openLock() (*os.File, error) {
	for {
		if err := os.Mkdir(state.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if err := hostdir.Owned(state.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(state.Dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
		if !errors.Is(err, fs.ErrNotExist) { // removed in between
			return f, err
		}
	}
}

// claim takes the file of an interface. It is nil when somebody has it.
func claim(name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(state.Dir, name), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, f.Close()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return f, nil
}

// release gives the file of an interface back.
func release(f *os.File) error {
	return errors.Join(os.Remove(f.Name()), f.Close())
}
