package main

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
)

// outb writes one byte to an I/O port; the thread needs ioperm(2) for it, or
// the CPU raises #GP and the kernel sends SIGSEGV.
func outb(port uint16, value byte)

// mark tells the monitor that a phase has begun. Only the microVM has the marks
// port; elsewhere nobody listens. ioperm(2) is the thread's own, and /dev/port
// is no way: Debian's cloud kernel is built without it (CONFIG_DEVPORT).
func mark(value byte) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if unix.Ioperm(agentproto.MarksPort, 1, 1) != nil {
		return // a kernel without CONFIG_X86_IOPL_IOPERM: the run has no marks
	}
	outb(agentproto.MarksPort, value)
	_ = unix.Ioperm(agentproto.MarksPort, 1, 0)
}
