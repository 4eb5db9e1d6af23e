// Package jail confines the process of a microVM's monitor, so that a guest that
// takes it over finds a process that can do next to nothing.
//
// The parent starts the monitor with the attributes of Attributes, which put it
// into namespaces of its own, and with the write end of a pipe. The monitor opens
// what it needs, makes the machine, and then calls
//
//	j, err := jail.Enter(jail.Config{Report: pipe})
//
// and has j.EnterVCPU called on each vCPU's thread before it enters the guest
// (vmm.Config.EnterVCPU). j.Layers says what is in force and what this host
// does not offer: a missing layer is reported, never silently done without.
// The one layer that must be there is the filter.
//
// # Roles
//
// policy.go lists what each role may call. VCPU is the threads in KVM_RUN: they
// run nothing but their vCPU, because they are locked to its goroutine and end
// with it. Monitor is every other thread: devices, timers, garbage collector.
// Goroutines wander between those, so Go allows no finer division.
//
// # A denied system call
//
// The filter's action is SECCOMP_RET_TRAP with the role as its data. The kernel
// then sends SIGSYS, and the handler of this package, a few instructions
// in assembly that need nothing of Go's runtime, writes what the kernel says
// about the call to the report pipe and ends the process with status 159. The
// parent reads it with ReadDenial, which knows the names. Why not
// SECCOMP_RET_USER_NOTIF: a thread can have one listener among all its filters
// (seccomp_user_notif), so the narrower filter of a vCPU's thread
// could not have reported; and the notification does not say which filter it
// was.
//
// # What Go's runtime forces
//
// Any thread may have to collect garbage, grow the heap, and preempt others:
// so every role has mmap and mprotect (never executable), madvise, munmap,
// futex, tgkill (only this process), sigaltstack, rt_sigprocmask and sleep.
// The monitor's threads may start others: clone, with exactly the flags of Go's
// runtime. The runtime names its mappings with prctl(PR_SET_VMA). Handlers of
// signals are in place by then: rt_sigaction is refused.
package jail
