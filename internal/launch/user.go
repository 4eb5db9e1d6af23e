package launch

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// Groups returns the supplementary groups of user: its own and its primary
// group. Without the latter a setgid program could drop out of a group that
// negative permissions are meant for (CVE-2022-36109).
func Groups(user workload.User) []int {
	out := make([]int, 0, len(user.Groups)+1)
	for _, g := range user.Groups {
		out = append(out, int(g))
	}
	if !slices.Contains(out, int(user.GID)) {
		out = append(out, int(user.GID))
	}
	return out
}

// Credentials makes the calling thread user's: supplementary groups, then group
// ids, then user ids. There is no way back. When the user id is not 0 the
// kernel clears the effective and permitted capabilities (capabilities(7)).
//
// Precondition: the caller has locked its goroutine to the thread and goes on to
// execve(2), which ends the other threads; they keep the old ids until then. To
// change all threads, as package syscall does, takes each of them a signal.
func Credentials(user workload.User) error {
	if err := unix.Setgroups(Groups(user)); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	return IDs(user)
}

// IDs is Credentials without the supplementary groups, for user namespaces that
// deny setgroups(2).
func IDs(user workload.User) error {
	gid, uid := uintptr(user.GID), uintptr(user.UID)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return fmt.Errorf("setgid %d: %w", gid, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return fmt.Errorf("setuid %d: %w", uid, errno)
	}
	return nil
}

// SysCredential is Credentials for the child of an exec.Cmd.
func SysCredential(user workload.User) *syscall.Credential {
	c := &syscall.Credential{Uid: user.UID, Gid: user.GID}
	for _, g := range Groups(user) {
		c.Groups = append(c.Groups, uint32(g))
	}
	return c
}

// asUser runs f on a thread whose file system ids and groups are user's, so
// that permission checks in f have the kernel's own answer. A caller without
// the right to change ids already is that user, and f runs as it is.
func asUser(user workload.User, f func()) error {
	if unix.Geteuid() != 0 || user.UID == 0 && user.GID == 0 && len(user.Groups) == 0 {
		f()
		return nil
	}
	runtime.LockOSThread()
	old, err := unix.Getgroups()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("getgroups: %w", err)
	}
	// x/sys changes the calling thread only, package syscall would change all.
	if err := unix.Setgroups(Groups(user)); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("setgroups: %w", err)
	}
	_, _ = unix.SetfsgidRetGid(int(user.GID))
	_, _ = unix.SetfsuidRetUid(int(user.UID))
	f()
	_, _ = unix.SetfsuidRetUid(0)
	_, _ = unix.SetfsgidRetGid(unix.Getegid())
	if err := unix.Setgroups(old); err != nil {
		return fmt.Errorf("restore groups: %w", err) // thread stays locked, ends with its goroutine
	}
	runtime.UnlockOSThread()
	return nil
}
