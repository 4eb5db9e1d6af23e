package inside

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// installSeccomp loads a filter for the calling thread; filter holds struct
// sock_filter, eight bytes each, in host order. The thread needs no_new_privs
// or CAP_SYS_ADMIN.
func installSeccomp(filter []byte) error {
	_, err := installSeccompFlags(filter, 0)
	return err
}

// installSeccompFlags is installSeccomp with SECCOMP_FILTER_FLAG_* flags; with
// that of a new listener it returns the listener's descriptor, close-on-exec.
func installSeccompFlags(filter []byte, flags uint32) (int, error) {
	const size = int(unsafe.Sizeof(unix.SockFilter{}))
	n := len(filter) / size
	if n == 0 || n*size != len(filter) || n > unix.BPF_MAXINSNS {
		return -1, fmt.Errorf("seccomp: %d bytes are no filter", len(filter))
	}
	prog := unix.SockFprog{
		Len: uint16(n),
		// SAFETY: filter holds n whole elements, checked above; sock_filter has
		// no pointers, and the kernel copies it without regard to alignment.
		Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0])),
	}
	// SAFETY: the kernel reads prog and what it points to before it returns.
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return -1, fmt.Errorf("seccomp: %w", errno)
	}
	return int(fd), nil
}

// defaultAction gives signal n the default action.
func defaultAction(n unix.Signal) error {
	// struct sigaction of the kernel: handler, flags, restorer, mask. All zero is
	// SIG_DFL.
	var action [4]uint64
	// SAFETY: rt_sigaction(2) reads 32 bytes from action, which outlives the call.
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(n), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	if errno != 0 {
		return fmt.Errorf("signal %d: %w", n, errno)
	}
	return nil
}

// ignored reports whether this process ignores signal n.
func ignored(n unix.Signal) bool {
	var action [4]uint64 // as above
	// SAFETY: rt_sigaction(2) writes 32 bytes to action, which outlives the call.
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(n), 0, uintptr(unsafe.Pointer(&action)), 8, 0, 0)
	return errno == 0 && action[0] == 1 // SIG_IGN
}
