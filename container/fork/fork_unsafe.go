package fork

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forkCall is what the child of Into works with: plain memory, prepared
// before the fork, because it may not allocate.
type forkCall struct {
	clone  cloneArgs
	second cloneArgs // when its flags are not 0: see child
	path   *byte
	argv   []*byte
	env    []*byte
	join   []Join
	root   bool      // one of them is a user namespace, to be its user 0
	fds    []uintptr // to become 0, 1, 2...; above all of those numbers
	report uintptr   // where a failure is written, close-on-exec
	mask   uint64    // signals to block in the program
	failed [2]int32  // step, errno
}

// cloneArgs is struct clone_args (clone3(2)).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal     uint64
	stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// Join is a namespace that the child enters: an open descriptor of it, and its
// type (CLONE_NEW*).
type Join struct{ FD, Flag uintptr }

// The steps of the child, for its report.
var forkSteps = []string{"join a namespace", "become user 0", "make a session", "pass a descriptor", "execute", "make the namespaces"}

// stepForked is no failure: the child's own child goes on, and this is its
// number.
const stepForked = 100

// Into is os.StartProcess for a child that joins namespaces: the kernel lets a
// process join those of users and time only while it has one thread and its own
// memory, which a Go program has just between fork and execve. The child leads a
// session of its own, and is in cgroup, a v2 directory, unless that is below 0, and
// in the new namespaces of flags (CLONE_NEW*).
func Into(path string, argv []string, files []*os.File, join []Join, cgroup int, flags uintptr) (*os.Process, error) {
	c, held, err := prepareFork(path, argv, files, join, cgroup, flags)
	defer func() {
		for _, f := range held {
			_ = f.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	c.report = w.Fd()
	if c.report < uintptr(len(files)) {
		// Its number would be overwritten.
		fd, err := unix.FcntlInt(c.report, unix.F_DUPFD_CLOEXEC, len(files))
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
		_ = w.Close()
		w = os.NewFile(uintptr(fd), "report")
		c.report = uintptr(fd)
	}
	syscall.ForkLock.Lock()
	pid, errno := c.fork()
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(files)
	_ = w.Close()
	if errno != 0 {
		return nil, fmt.Errorf("clone3: %w", errno)
	}
	return forked(r, int(pid))
}

// forked follows a child by its reports until it executes, which closes r.
func forked(r *os.File, pid int) (*os.Process, error) {
	for {
		p, err := os.FindProcess(pid)
		if err != nil {
			return nil, err
		}
		var buf [8]byte
		if _, err := io.ReadFull(r, buf[:]); err != nil {
			return p, nil // closed by execve
		}
		_, _ = p.Wait()
		step, value := int32(binary.NativeEndian.Uint32(buf[:])), binary.NativeEndian.Uint32(buf[4:])
		if step == stepForked {
			pid = int(value)
			continue
		}
		return nil, fmt.Errorf("%s: %w", forkSteps[int(step)%len(forkSteps)], unix.Errno(value))
	}
}

// prepareFork fills a forkCall, and returns the files to close after the fork.
func prepareFork(path string, argv []string, files []*os.File, join []Join, cgroup int, flags uintptr) (*forkCall, []*os.File, error) {
	c := &forkCall{join: join, env: []*byte{nil}}
	var err error
	if c.path, err = unix.BytePtrFromString(path); err != nil {
		return nil, nil, err
	}
	for _, a := range argv {
		p, err := unix.BytePtrFromString(a)
		if err != nil {
			return nil, nil, err
		}
		c.argv = append(c.argv, p)
	}
	c.argv = append(c.argv, nil)
	var held []*os.File
	for _, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, len(files))
		if err != nil {
			return nil, held, err
		}
		held = append(held, os.NewFile(uintptr(fd), f.Name()))
		c.fds = append(c.fds, uintptr(fd))
	}
	c.root = slices.ContainsFunc(join, func(j Join) bool { return j.Flag == unix.CLONE_NEWUSER })
	c.clone.exitSignal = uint64(unix.SIGCHLD)
	if len(join) > 0 && flags != 0 || slices.ContainsFunc(join, func(j Join) bool { return j.Flag == unix.CLONE_NEWPID }) {
		// A user namespace owns those that are made in it: join first. One of pids
		// is for the children of who joins it.
		c.second = cloneArgs{flags: uint64(flags) | unix.CLONE_PARENT}
	} else {
		c.clone.flags = uint64(flags)
	}
	if cgroup >= 0 {
		c.clone.flags |= unix.CLONE_INTO_CGROUP
		c.clone.cgroup = uint64(cgroup)
	}
	return c, held, nil
}

// fork makes the child and runs it. It blocks all signals meanwhile: the child
// must not run a handler of Go's, whose other threads it does not have.
//
// SAFETY: the pointers given to the kernel are into c, which the caller keeps;
// the child has a copy of this memory, runs on a copy of this stack, and does
// nothing but raw system calls until execve or exit, without growing the stack
// (nosplit), allocating, or entering Go's scheduler.
//
//go:norace
//go:noinline
func (c *forkCall) fork() (uintptr, syscall.Errno) {
	all := ^uint64(0)
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&c.mask)), 8, 0, 0); errno != 0 {
		return 0, errno
	}
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&c.clone)), unsafe.Sizeof(c.clone), 0)
	if errno == 0 && pid == 0 {
		c.child()
	}
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&c.mask)), 0, 8, 0, 0)
	return pid, errno
}

// child does not return. With second it is its child that goes on, a child of
// this process as well (CLONE_PARENT, whose exit signal is the child's).
//
//go:norace
//go:nosplit
//go:noinline
func (c *forkCall) child() {
	for i := range c.join {
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETNS, c.join[i].FD, c.join[i].Flag, 0); errno != 0 {
			c.die(0, errno)
		}
	}
	if c.root {
		// Groups of the caller are nobody's there; where setgroups(2) is denied
		// they stay, which is what the kernel wants.
		_, _, _ = syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); errno != 0 {
			c.die(1, errno)
		}
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno != 0 {
			c.die(1, errno)
		}
	}
	if c.second.flags != 0 {
		pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&c.second)), unsafe.Sizeof(c.second), 0)
		if errno != 0 {
			c.die(5, errno)
		}
		if pid != 0 {
			c.die(stepForked, syscall.Errno(pid))
		}
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0); errno != 0 {
		c.die(2, errno)
	}
	for i := range c.fds {
		if _, _, errno := syscall.RawSyscall(unix.SYS_DUP3, c.fds[i], uintptr(i), 0); errno != 0 {
			c.die(3, errno)
		}
	}
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&c.mask)), 0, 8, 0, 0)
	_, _, errno := syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(c.path)),
		uintptr(unsafe.Pointer(&c.argv[0])), uintptr(unsafe.Pointer(&c.env[0])))
	c.die(4, errno)
}

// die reports the step that failed and ends the child.
//
//go:norace
//go:nosplit
func (c *forkCall) die(step int32, errno syscall.Errno) {
	c.failed[0], c.failed[1] = step, int32(errno)
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, c.report, uintptr(unsafe.Pointer(&c.failed)), 8)
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 125, 0, 0)
	}
}
