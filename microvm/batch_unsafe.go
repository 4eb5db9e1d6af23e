package microvm

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// schedBatch is SCHED_BATCH (sched(7)).
const schedBatch = 3

// schedParam is struct sched_param.
type schedParam struct{ priority int32 }

// shareCPUs keeps device threads from interrupting vCPUs when the machine has as
// many vCPUs as this process has CPUs, so that they cannot run side by side.
// With the normal policy a thread that wakes up for a notification takes the CPU
// from the guest then and there, serves a single request, and sleeps again: each
// request costs a notification, an interrupt and two switches. A thread of
// SCHED_BATCH waits until the guest has nothing more to do, or its time slice
// is over, and finds all of its requests. With CPUs to spare it has one of its
// own at once.
//
// It is for every thread of this process, those to come included.
func shareCPUs(vcpus int) {
	if vcpus < runtime.NumCPU() {
		return
	}
	p := schedParam{} // 0, as the policy demands
	// SAFETY: the kernel reads p, which is alive and in place until KeepAlive.
	_, _, _ = syscall.AllThreadsSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, schedBatch, uintptr(unsafe.Pointer(&p))) // else it is slower
	runtime.KeepAlive(&p)
}
