package confine

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespaces are those that an isolated process gets new ones of.
const Namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// Identity says who a process is in its new user namespace.
type Identity int

// The identities.
const (
	// Caller is the caller, and no other id exists: it may do to files what the
	// caller may.
	Caller Identity = iota
	// Nobody is id 0 inside and 65534 outside: it may do less than any user.
	// Only root can start it.
	Nobody
	// Everyone has all ids, as outside. Only root can start it.
	Everyone
)

// nobody is the id that Linux keeps for files and processes of no one.
const nobody = 65534

// Isolate makes the process that sys starts one in namespaces of its own, a user
// namespace among them. In them it has the capabilities that EmptyRoot and
// DropCapabilities need, over nothing outside.
func Isolate(sys *syscall.SysProcAttr, who Identity) {
	sys.Cloneflags |= Namespaces | unix.CLONE_NEWUSER
	one := func(inside, host int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: inside, HostID: host, Size: 1}}
	}
	switch who {
	case Caller:
		sys.UidMappings, sys.GidMappings = one(os.Geteuid(), os.Geteuid()), one(os.Getegid(), os.Getegid())
		if os.Geteuid() != 0 { // execve takes the capabilities of others than user 0
			sys.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}
		}
	case Nobody:
		sys.UidMappings, sys.GidMappings = one(0, nobody), one(0, nobody)
		sys.GidMappingsEnableSetgroups = true
		sys.Credential = &syscall.Credential{} // id 0 of the namespace, and no groups
	case Everyone:
		all := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1<<32 - 1}}
		sys.UidMappings, sys.GidMappings = all, all
		sys.GidMappingsEnableSetgroups = true
	}
}

// EmptyRoot leaves the process no file system but an empty one that cannot be
// written to. Open descriptors stay what they are.
// Precondition: a mount namespace of its own, and CAP_SYS_ADMIN in it.
func EmptyRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	at := ""
	for _, dir := range []string{"/tmp", "/dev", "/proc", "/etc"} { // some directory every host has
		err := unix.Mount("duplex-empty", dir, "tmpfs", flags, "size=4k,nr_inodes=1,mode=0555")
		if err == nil {
			at = dir
			break
		}
		if !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("mount an empty tmpfs: %w", err)
		}
	}
	if err := unix.Chdir(at); err != nil {
		return fmt.Errorf("enter the empty root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil { // pivot_root(2), "pivot_root(".", ".")"
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return unix.Chdir("/")
}
