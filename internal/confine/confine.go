package confine

import (
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

// noRegain are the securebits (capabilities(7), linux/securebits.h) with which
// being user 0 gives no capability and no ambient one can be raised, locked for
// good: NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE with their locks, and the
// lock of KEEP_CAPS.
const noRegain = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<7

// DropCapabilities leaves every thread the capabilities in keep (bits by number)
// as permitted and effective ones, as far as the calling thread has them, and
// none as inheritable or ambient ones. Being user 0 brings none back. That,
// with NoNewPrivs, is what emptying the bounding set would do; one call
// a capability and thread takes 2 to 10 ms, this 0.1 ms.
func DropCapabilities(keep uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&hdr, &have[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	if have[0].Effective&(1<<unix.CAP_SETPCAP) != 0 {
		if err := allThreads(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, noRegain); err != nil {
			return fmt.Errorf("set securebits: %w", err)
		}
	}
	permitted := uint64(have[0].Permitted) | uint64(have[1].Permitted)<<32
	return SetCapabilities(keep & permitted)
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
