package confine

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// NoNewPrivs makes sure that no execve(2) gives any thread more rights than it has.
func NoNewPrivs() error {
	if err := allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}

// DropCapabilities leaves every thread the capabilities in keep (bits by number)
// as permitted and effective ones, as far as the calling thread has them, and
// none as inheritable or ambient ones. The rest leaves the bounding set, too,
// where the process may do that (CAP_SETPCAP).
func DropCapabilities(keep uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&hdr, &have[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	for c := uintptr(0); c < 64; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the kernel has no capability c, nor any after it
		}
		if err != nil {
			return fmt.Errorf("read the bounding set: %w", err)
		}
		if in == 0 || have[0].Effective&(1<<unix.CAP_SETPCAP) == 0 {
			continue
		}
		if err := allThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c); err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	permitted := uint64(have[0].Permitted) | uint64(have[1].Permitted)<<32
	return capset(keep & permitted)
}

// Limit is one resource limit (setrlimit(2)): soft and hard.
type Limit struct {
	Resource int
	Value    uint64
}

// SetLimits lowers limits of the process. One that is lower already stays.
func SetLimits(limits ...Limit) error {
	for _, l := range limits {
		var now unix.Rlimit
		if err := unix.Getrlimit(l.Resource, &now); err != nil {
			return fmt.Errorf("read resource limit %d: %w", l.Resource, err)
		}
		v := min(l.Value, now.Max)
		if err := unix.Setrlimit(l.Resource, &unix.Rlimit{Cur: min(v, now.Cur), Max: v}); err != nil {
			return fmt.Errorf("set resource limit %d: %w", l.Resource, err)
		}
	}
	return nil
}

// Undumpable keeps the process's memory from core dumps and from ptrace by
// processes without privilege over it.
func Undumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("clear dumpable: %w", err)
	}
	return nil
}

// CloseOnExec keeps every open descriptor but the standard streams from programs
// this process starts; those that are passed on purpose (exec.Cmd.ExtraFiles)
// are copies and do pass. Go opens none without the flag, but a shell may have
// handed down some.
func CloseOnExec() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	return nil
}
