package workload

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Phase is a point in a run that both isolations pass (or, for PhaseKernelUp,
// only one). docs/measuring.md defines where each starts and ends.
type Phase int

// The phases, in order.
const (
	PhaseExec      Phase = iota // P0: the duplex process was started
	PhaseImage                  // P1: image ready
	PhaseCreated                // P2: VM and vCPUs, or namespaces, created
	PhaseLoaded                 // P3: memory, kernel, initramfs, or cgroup and mounts, in place
	PhaseEntered                // P4: first KVM_RUN, or pivot_root done
	PhaseKernelUp               // P5: first mark from the agent; microVM only
	PhaseWorkload               // P6: workload execve
	PhaseFirstByte              // P7: first byte of workload output
	PhaseExited                 // P8: exit status known
	PhaseTornDown               // P9: everything torn down
	NumPhases
)

var phaseNames = [NumPhases]string{
	"exec", "image", "created", "loaded", "entered",
	"kernel_up", "workload", "first_byte", "exited", "torn_down",
}

func (p Phase) String() string {
	if p < 0 || p >= NumPhases {
		return "unknown"
	}
	return phaseNames[p]
}

// Now reads CLOCK_MONOTONIC_RAW of this host, in nanoseconds. It is the only
// clock that phases are stamped with.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &ts); err != nil {
		return 0 // cannot fail for this clock since Linux 2.6.28
	}
	return ts.Nano()
}

// Usage is what a run cost, filled in by the runner as far as it knows.
type Usage struct {
	// CPUNs is host CPU time of everything the run needed, in nanoseconds.
	CPUNs int64 `json:"cpu_ns"`
	// Memory holds peaks in bytes by kind: "vmm_private" (the monitor's own,
	// without guest memory), "guest_rss" (guest memory the host had to back),
	// "cgroup_peak".
	Memory map[string]int64 `json:"memory,omitempty"`
	// Exits counts VM exits by reason; nil for a container.
	Exits map[string]uint64 `json:"exits,omitempty"`
	// Bytes counts what a microVM's start moved, by kind: "kernel" and "initrd"
	// were put into guest memory before it ran, "disk_read" is what the guest read
	// from its disks.
	Bytes map[string]int64 `json:"bytes,omitempty"`
}

// Recorder collects the phase stamps and the usage of one run. All methods may
// be called from several goroutines and on a nil Recorder, which drops them.
type Recorder struct {
	mu     sync.Mutex
	stamps [NumPhases]int64
	steps  []Step
	usage  Usage
}

// Stamp records p at this moment; only the first stamp of a phase counts.
func (r *Recorder) Stamp(p Phase) { r.StampAt(p, Now()) }

// StampAt records p at a moment read from Now, on this host, earlier.
func (r *Recorder) StampAt(p Phase, ns int64) {
	if r == nil || p < 0 || p >= NumPhases {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stamps[p] == 0 {
		r.stamps[p] = ns
	}
}

// Stamps returns the absolute stamps by phase name; phases not passed are absent.
func (r *Recorder) Stamps() map[string]int64 {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]int64, NumPhases)
	for p, ns := range r.stamps {
		if ns != 0 {
			out[Phase(p).String()] = ns
		}
	}
	return out
}

// SetUsage calls f with the usage collected so far, to be added to.
func (r *Recorder) SetUsage(f func(*Usage)) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.usage)
}

// Usage returns what SetUsage collected.
func (r *Recorder) Usage() Usage {
	if r == nil {
		return Usage{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.usage
}
