package bridge

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/network/bridge/state"
)

// Sweep removes what runs that were killed left of the bridge. It costs next to
// nothing where there is no bridge.
func Sweep() error {
	if unix.Access(state.Dir, unix.W_OK) != nil || mayAdminister() != nil {
		return nil
	}
	unlock, err := lock()
	if err != nil {
		return fmt.Errorf("sweep the bridge: %w", err)
	}
	defer unlock()
	if err := errors.Join(sweep(), removeIfIdle()); err != nil {
		return fmt.Errorf("sweep the bridge: %w", err)
	}
	return nil
}

// sweep removes the ports whose owners died. The caller holds the lock.
func sweep() error {
	names, err := state.Claims()
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := claim(name)
		if err != nil {
			return err
		}
		if f == nil {
			continue // it lives
		}
		if err := errors.Join(removeLink(name), release(f)); err != nil {
			return err
		}
	}
	return nil
}

// Error is a failure of the kernel's.
type Error struct {
	Op     string
	Err    error
	Module string // that may be missing
}

func (e *Error) Error() string { return e.Op + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Remedy says what helps, "" when that is not known.
func (e *Error) Remedy() string {
	switch {
	case errors.Is(e.Err, unix.EOPNOTSUPP), errors.Is(e.Err, os.ErrNotExist), errors.Is(e.Err, unix.ENODEV):
		return "Load the module: modprobe " + e.Module + "."
	}
	return ""
}

// rightsError says that the caller may not have a bridge.
type rightsError struct{}

func (rightsError) Error() string { return "a bridge needs CAP_NET_ADMIN" }

// Remedy says what helps.
func (rightsError) Remedy() string {
	return "Run duplex as root, or use --network user, which needs no rights."
}

// Check returns what keeps the caller from joining, as far as that is known before.
func Check() error { return mayAdminister() }

// mayAdminister is a rightsError without CAP_NET_ADMIN.
func mayAdminister() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return rightsError{}
	}
	return nil
}
