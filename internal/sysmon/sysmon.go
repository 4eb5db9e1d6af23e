// Package sysmon keeps the monitor thread of Go's runtime from waking up more often
// than a short program needs.
//
// While any goroutine runs, that thread sleeps 20 microseconds at a time, to find
// goroutines that run too long and threads that wait in the kernel. In a program
// that makes a few hundred system calls and ends, that is most of its context
// switches, and a tenth of its processor time (docs/start-time.md).
package sysmon

import (
	"fmt"
	"os"
	"strconv"
)

// slack is how much later than it wanted the thread may be woken, in nanoseconds.
const slack = "5000000"

// Calm sets the timer slack (proc_pid_timerslack_ns(5)) of the monitor, the thread
// that the runtime starts first: the lowest number above the process's own. Other
// threads would hand it on to processes that they start. Where it cannot be told or
// set, nothing is lost but time.
func Calm() {
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return
	}
	names, _ := dir.Readdirnames(-1)
	_ = dir.Close()
	first, monitor := os.Getpid(), 0
	for _, name := range names {
		tid, err := strconv.Atoi(name)
		if err == nil && tid > first && (monitor == 0 || tid < monitor) {
			monitor = tid
		}
	}
	if monitor != 0 {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/timerslack_ns", monitor), []byte(slack), 0)
	}
}
