package main

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// interruptCPUs goes to every CPU once: the kernel interrupts a CPU to make a
// thread run there. An emulated interrupt controller that lost sight of a
// pending interrupt sees it with the next.
func interruptCPUs() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil {
		return
	}
	for cpu := range 64 * len(all) {
		if !all.IsSet(cpu) {
			continue
		}
		var one unix.CPUSet
		one.Set(cpu)
		_ = unix.SchedSetaffinity(0, &one) // a CPU that cannot be reached is no worse off
	}
	_ = unix.SchedSetaffinity(0, &all)
}
