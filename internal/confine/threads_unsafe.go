package confine

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errThreads says that threads differ in what they have already given up.
var errThreads = errors.New("the threads of this process have different filters")

// ErrCgo says that Go does not know all threads of this process, because the
// program was built with cgo, so that it cannot confine them.
var ErrCgo = errors.New("this program was built with cgo, and its threads cannot be confined")

// onThreads is the error of a call on every thread (syscall.AllThreadsSyscall).
func onThreads(errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return ErrCgo
	}
	return errno
}

// allThreads makes a call whose arguments are numbers on every thread.
func allThreads(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	_, _, errno := syscall.AllThreadsSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	return onThreads(errno)
}

// SetCapabilities leaves every thread the capabilities in set (bits by number) as
// permitted and effective ones, and none to inherit. Precondition: every thread
// has them.
func SetCapabilities(set uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(set), Permitted: uint32(set)},
		{Effective: uint32(set >> 32), Permitted: uint32(set >> 32)},
	}
	// SAFETY: capset(2) reads the header and two elements of data (version 3);
	// both stay alive and in place until KeepAlive. It may write hdr.Version, and
	// every thread would write the same.
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0)
	runtime.KeepAlive(&hdr)
	runtime.KeepAlive(&data)
	if err := onThreads(errno); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

// SetFilter installs a seccomp filter: for every thread, those to come included,
// or for the calling thread only. Filters add up; none can be taken away.
// Precondition: NoNewPrivs, or CAP_SYS_ADMIN.
func SetFilter(filter []unix.SockFilter, all bool) error {
	if len(filter) == 0 || len(filter) > unix.BPF_MAXINSNS {
		return fmt.Errorf("seccomp: a filter of %d instructions", len(filter))
	}
	flags := uintptr(0)
	if all {
		flags = unix.SECCOMP_FILTER_FLAG_TSYNC
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// SAFETY: the kernel reads prog and the Len instructions it points to before it
	// returns; filter is kept alive until then.
	tid, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	switch {
	case errno != 0:
		return fmt.Errorf("seccomp: %w", errno)
	case tid != 0: // the thread that could not follow
		return fmt.Errorf("seccomp: thread %d: %w", tid, errThreads)
	}
	return nil
}
