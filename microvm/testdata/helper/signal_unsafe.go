package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// defaultAction gives the signals back the action they have in a program that
// is not Go's: the runtime handles SIGSEGV and ignores SIGUSR1.
func defaultAction(signals ...unix.Signal) {
	// struct kernel_sigaction: handler, flags, restorer, mask. All zero is SIG_DFL.
	var action [4]uint64
	for _, s := range signals {
		// SAFETY: action outlives the call and is as large as the kernel reads.
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
}
