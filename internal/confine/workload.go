package confine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Workload is the Landlock domain of a container's program: what can be
// forbidden to any program without one noticing that had no business there.
//
// A domain forbids more than it is made for. Its processes may not trace, or read
// /proc/PID/environ, fd, root and the like of, a process that is not in it; so it
// is for a container that shares no PID namespace. One that handles any file
// access forbids mounts: Files must be false where the program may mount.
type Workload struct {
	// Sockets forbids connections to abstract Unix sockets of processes outside:
	// there is something to forbid in the host's network namespace (version 6).
	Sockets bool
	// Files forbids ioctl(2) of devices but those beneath Devices (version 5).
	Files bool
	// Devices are paths, below which a device stays usable; what is missing of
	// them is skipped.
	Devices []string
	// NoNodes forbids making device nodes: for one that has no CAP_MKNOD in the
	// host's user namespace anyhow.
	NoNodes bool
}

const (
	fsMakeChar  = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR
	fsMakeBlock = unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK
)

// domain is what a kernel of version abi makes of w; with neither fs nor scoped
// there is none to enter.
func (w Workload) domain(abi int) (attr rulesetAttr, size uintptr) {
	all, size := handled(abi)
	if w.Sockets {
		attr.scoped = all.scoped
	}
	// Version 1 forbids every rename and link between directories.
	if !w.Files || abi < 2 {
		return attr, size
	}
	attr.fs = all.fs & fsIoctl
	if w.NoNodes {
		attr.fs |= fsMakeChar | fsMakeBlock
	}
	if attr.fs != 0 {
		// Denied by every domain that handles files, unless it is handled and
		// allowed.
		attr.fs |= fsRefer
	}
	return attr, size
}

// Enter puts the calling thread, and what it executes, into the domain. It
// reports whether there is one: a kernel may have no Landlock, or too old a one.
// Preconditions: Ruleset's, and the thread has no_new_privs or CAP_SYS_ADMIN.
func (w Workload) Enter() (bool, error) {
	ruleset, err := w.Ruleset()
	if err != nil || ruleset < 0 {
		return false, err
	}
	defer func() { _ = unix.Close(ruleset) }()
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0); errno != 0 {
		return false, fmt.Errorf("landlock_restrict_self: %w", errno)
	}
	return true, nil
}

// Ruleset returns a descriptor of the domain's rules, for landlock_restrict_self(2),
// or -1 where there is no domain. Precondition: "/" is the container's.
func (w Workload) Ruleset() (int, error) {
	attr, size := w.domain(LandlockABI())
	if attr.fs|attr.scoped == 0 {
		return -1, nil
	}
	ruleset, err := newRuleset(attr, size)
	if err != nil {
		return -1, err
	}
	if attr.fs != 0 {
		err = allow(ruleset, "/", fsRefer)
	}
	if attr.fs&fsIoctl != 0 {
		for _, path := range w.Devices {
			if err == nil {
				err = allow(ruleset, path, fsIoctl)
			}
		}
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(ruleset))
	}
	return ruleset, nil
}

func allow(ruleset int, path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := addRule(ruleset, fd, access); err != nil {
		return fmt.Errorf("%w: %s", err, path)
	}
	return nil
}
