package workload

import "golang.org/x/sys/unix"

// Step is a moment of a run on the host's clock, finer than a Phase, or a Phase
// with what its process had cost by then.
type Step struct {
	// Name is a Phase's, or says what was just done or marked.
	Name string `json:"name"`
	// Ns is CLOCK_MONOTONIC_RAW, in nanoseconds.
	Ns int64 `json:"ns"`
	// Process is who says so: ProcessDuplex or ProcessMonitor.
	Process string `json:"process,omitempty"`
	Faults
	KVM
}

// KVM is what KVM has counted of a microVM's vCPUs since they were made; all zero
// where it cannot tell.
type KVM struct {
	// Exits are all of the processor's, those that KVM handles by itself included.
	Exits int64 `json:"kvm_exits,omitempty"`
	// Halts are exits because the guest had nothing to do, and IdleNs how long it
	// then waited.
	Halts  int64 `json:"halts,omitempty"`
	IdleNs int64 `json:"idle_ns,omitempty"`
	// MemoryFaults are exits because guest memory was not mapped for the guest yet,
	// Interrupts those that an interrupt of the host caused, and Emulated the
	// instructions that KVM carried out in place of the processor.
	MemoryFaults int64 `json:"memory_faults,omitempty"`
	Interrupts   int64 `json:"interrupts,omitempty"`
	Emulated     int64 `json:"emulated,omitempty"`
}

// The processes of a run that stamp steps.
const (
	ProcessDuplex  = "duplex"
	ProcessMonitor = "monitor"
)

// StepMark is the name of a step that the guest's agent marked; its own name is in
// the guest kernel's log (agentproto.ReportKey).
const StepMark = "mark"

// Faults are the page faults of a process since it started. Those that KVM takes
// to back guest memory are among the monitor's.
type Faults struct {
	// Minor were served from memory: a new zeroed page, or one of the page cache.
	Minor int64 `json:"minor_faults,omitempty"`
	// Major had to wait for a disk.
	Major int64 `json:"major_faults,omitempty"`
}

// Sub is what was counted since before, and whether nothing ran backward.
func (k KVM) Sub(before KVM) (KVM, bool) {
	d := KVM{
		Exits: k.Exits - before.Exits, Halts: k.Halts - before.Halts, IdleNs: k.IdleNs - before.IdleNs,
		MemoryFaults: k.MemoryFaults - before.MemoryFaults, Interrupts: k.Interrupts - before.Interrupts, Emulated: k.Emulated - before.Emulated,
	}
	return d, min(d.Exits, d.Halts, d.IdleNs, d.MemoryFaults, d.Interrupts, d.Emulated) >= 0
}

// OwnFaults are those of this process.
func OwnFaults() Faults {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return Faults{} // cannot fail for RUSAGE_SELF
	}
	return Faults{Minor: ru.Minflt, Major: ru.Majflt}
}

// maxSteps bounds the steps of a run: a guest can write any number of marks.
const maxSteps = 1024

// AddStep records a step; beyond maxSteps they are dropped.
func (r *Recorder) AddStep(s Step) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.steps) < maxSteps {
		r.steps = append(r.steps, s)
	}
}

// Step records that the calling process of duplex has just done what name says.
func (r *Recorder) Step(name string) {
	if r != nil {
		r.AddStep(Step{Name: name, Ns: Now(), Process: ProcessDuplex, Faults: OwnFaults()})
	}
}

// Steps returns the steps in the order they were recorded.
func (r *Recorder) Steps() []Step {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Step(nil), r.steps...)
}
