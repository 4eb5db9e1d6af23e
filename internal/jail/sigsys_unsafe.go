package jail

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reportFD is where sigsys writes. It is set before the handler is.
var reportFD uint64

// reportFile keeps the descriptor open: a file that nothing refers to is closed.
var reportFile *os.File

// sigsysPC is the handler's address; see sigsys_amd64.s.
var sigsysPC uint64

var errEntered = errors.New("this process is in a jail already")

// handleSIGSYS replaces Go's handler, which would print every goroutine.
func handleSIGSYS(report *os.File) error {
	if reportFile != nil || reportFD != 0 {
		return errEntered
	}
	const siginfo, onStack, restorer = 4, 0x08000000, 0x04000000
	reportFile, reportFD = report, uint64(report.Fd())
	// struct sigaction of the kernel: handler, flags, restorer, mask. The handler
	// never returns, but x86-64 wants a restorer.
	action := [4]uint64{sigsysPC, siginfo | onStack | restorer, sigsysPC, ^uint64(0)}
	// SAFETY: rt_sigaction(2) reads 32 bytes from action, which outlives the call.
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSYS), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	if errno != 0 {
		return fmt.Errorf("handle SIGSYS: %w", errno)
	}
	return nil
}
