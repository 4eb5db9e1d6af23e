package confine

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Beneath is a directory tree, or a file, that stays usable under Landlock.
type Beneath struct {
	Dir      *os.File
	ReadOnly bool
}

// Access rights of <linux/landlock.h>, by the ABI version that brought them.
const (
	fsExecute = 1 << 0
	fsRead    = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	fsV1      = 1<<13 - 1
	fsRefer   = 1 << 13     // 2
	fsTrunc   = 1 << 14     // 3
	netTCP    = 1<<0 | 1<<1 // 4
	fsIoctl   = 1 << 15     // 5
	fsOfFile  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | fsTrunc | fsIoctl
	// 6: abstract Unix sockets. Not signals: before Linux 6.15 that scope also
	// refuses those between threads that entered their domains one by one, which
	// Go's runtime sends all the time.
	scopes = 1 << 0
)

// rulesetAttr is struct landlock_ruleset_attr; older kernels know the start of it.
type rulesetAttr struct{ fs, net, scoped uint64 }

// LandlockABI is the version of Landlock's interface that the kernel offers, 0
// where there is none.
func LandlockABI() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// ErrNoLandlock reports a kernel without Landlock, or with it switched off.
var ErrNoLandlock = errors.New("the kernel has no Landlock")

// Landlock forbids every thread to open or change files but those beneath the
// given directories, to execute any, to use TCP ports, and to reach abstract
// sockets outside; as much of that as the kernel's version knows.
// Descriptors that are open already keep working.
// Precondition: NoNewPrivs.
func Landlock(rules ...Beneath) error {
	abi := LandlockABI()
	if abi < 1 {
		return ErrNoLandlock
	}
	attr, size := handled(abi)
	fd, err := newRuleset(attr, size)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	for _, r := range rules {
		access := attr.fs &^ fsExecute
		if r.ReadOnly {
			access = fsRead
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(r.Dir.Fd()), &st); err != nil {
			return fmt.Errorf("stat %s: %w", r.Dir.Name(), err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			access &= fsOfFile
		}
		if err := addRule(fd, int(r.Dir.Fd()), access); err != nil {
			return fmt.Errorf("%w: %s", err, r.Dir.Name())
		}
	}
	if err := allThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(fd), 0); err != nil {
		return fmt.Errorf("landlock_restrict_self: %w", err)
	}
	return nil
}

// newRuleset makes a ruleset of attr, of which the kernel knows size bytes, and
// returns its descriptor.
func newRuleset(attr rulesetAttr, size uintptr) (int, error) {
	// SAFETY: the kernel reads size bytes of attr, at most its size, and keeps
	// no reference.
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return -1, fmt.Errorf("landlock_create_ruleset: %w", errno)
	}
	return int(fd), nil
}

// addRule allows access beneath the directory, or to the file, dir.
func addRule(ruleset, dir int, access uint64) error {
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(dir)}
	// SAFETY: the kernel reads struct landlock_path_beneath_attr, 12 bytes,
	// which rule begins with, and keeps no reference to it.
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("landlock_add_rule: %w", errno)
	}
	return nil
}

// handled is what a version can forbid, and the size of its structure.
func handled(abi int) (attr rulesetAttr, size uintptr) {
	attr.fs, size = fsV1, 8
	if abi >= 2 {
		attr.fs |= fsRefer
	}
	if abi >= 3 {
		attr.fs |= fsTrunc
	}
	if abi >= 4 {
		attr.net, size = netTCP, 16
	}
	if abi >= 5 {
		attr.fs |= fsIoctl
	}
	if abi >= 6 {
		attr.scoped, size = scopes, 24
	}
	return attr, size
}
