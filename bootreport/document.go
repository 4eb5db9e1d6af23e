package bootreport

import (
	"github.com/duplex-run/duplex/compare"
	"github.com/duplex-run/duplex/internal/workload"
)

// Schema names the format of a Document. Fields may be added under one name; it
// changes when one is removed or changes its meaning.
const Schema = "duplex.boot-report/1"

// Document is everything a report found: the --json output. Times are nanoseconds
// since exec of duplex unless they say otherwise.
type Document struct {
	Schema  string        `json:"schema"`
	Host    compare.Host  `json:"host"`
	Image   compare.Image `json:"image"`
	Command []string      `json:"command,omitempty"`
	// Warm says that the machines were restored from a snapshot: there is no kernel's
	// log then, and no step of the agent.
	Warm bool `json:"warm,omitempty"`
	// Boots are the three, in the order they were made.
	Boots []Boot `json:"boots"`
	// End is the phase that the waterfall ends with: first_byte, or exited for a
	// command that wrote nothing.
	End     string `json:"end"`
	TotalNs int64  `json:"total_ns"`
	// ExecAt is when the observed boot's duplex was started, by CLOCK_MONOTONIC_RAW
	// of that host, nanoseconds.
	ExecAt int64 `json:"exec_at_ns"`
	// Spans are the waterfall, in order of their start, a span before its parts.
	Spans  []Span   `json:"spans"`
	Kernel Kernel   `json:"kernel"`
	Exits  []Exits  `json:"exits"`
	Advice []Advice `json:"advice"`
	// FaultNs is what one page fault costs on this host, measured here by touching
	// new memory; a guest's costs an exit on top.
	FaultNs int64 `json:"fault_ns"`
	// ExitNs is what an exit takes that KVM handles by itself, measured here with a
	// tiny guest's CPUID; 0 where that cannot be measured.
	ExitNs int64 `json:"exit_ns"`
	// KVM is what KVM counted until the command was executed.
	KVM workload.KVM `json:"kvm"`
	// Notes say what is missing or uncertain.
	Notes []string `json:"notes,omitempty"`
}

// Kinds of boots.
const (
	First    = "first"    // plain, as it comes
	Observed = "observed" // traced, with the guest's log
	Again    = "again"    // plain, after the observed one
)

// Boot is one of the boots.
type Boot struct {
	Kind string `json:"kind"`
	// PhasesNs are as in duplex.compare/1.
	PhasesNs map[string]int64 `json:"phases_ns"`
	CPUNs    int64            `json:"cpu_ns"`
	// Faults are those of duplex and its monitor together, to their end.
	workload.Faults
	// ReadBytes is what the host's disks had to read for it.
	ReadBytes int64 `json:"read_bytes"`
	// Bytes are those of workload.Usage: kernel, initrd, disk_read.
	Bytes  map[string]int64  `json:"bytes,omitempty"`
	Memory map[string]int64  `json:"memory,omitempty"`
	Exits  map[string]uint64 `json:"exits,omitempty"`
	// Ended is how the command ended.
	Ended string `json:"ended"`
}

// Groups of spans.
const (
	GroupHost    = "host"
	GroupKernel  = "kernel"
	GroupAgent   = "agent"
	GroupCommand = "command"
)

// Clocks of spans.
const (
	HostClock  = "host"
	GuestClock = "guest" // the log's, placed: see the package comment
)

// Span is a bar of the waterfall.
type Span struct {
	Name string `json:"name"`
	// Group is who works: GroupHost and so on.
	Group string `json:"group"`
	// Depth is 0 for a phase, 1 for a part of one, 2 for a part of that.
	Depth   int    `json:"depth"`
	StartNs int64  `json:"start_ns"`
	EndNs   int64  `json:"end_ns"`
	Clock   string `json:"clock"`
	// Exits to the monitor, and the time it took to handle them; only on the host's
	// clock.
	Exits  uint64 `json:"exits,omitempty"`
	ExitNs uint64 `json:"exit_ns,omitempty"`
	// Faults are the monitor's, guest memory included; nil where they are not known.
	Faults *workload.Faults `json:"faults,omitempty"`
	// KVM is what KVM counted, those exits included that did not reach the monitor;
	// nil where it is not known.
	KVM *workload.KVM `json:"kvm,omitempty"`
}

// Took is the span's length in nanoseconds.
func (s *Span) Took() int64 { return s.EndNs - s.StartNs }

// Exits are those that were about one device, until the waterfall's end.
type Exits struct {
	// Device is the trace's name for it, or "port" and "address" for those that
	// nothing answers, or the exit's reason.
	Device string `json:"device"`
	Exits  uint64 `json:"exits"`
	HostNs uint64 `json:"host_ns"` // to handle them
	Writes uint64 `json:"writes"`  // those that were writes
}

// Kernel is what the guest kernel's log says; all zero without one. At is
// nanoseconds on the log's own clock.
type Kernel struct {
	Lines int `json:"lines"`
	// Lost lines were overwritten in the kernel's buffer; Bad ones make no sense.
	Lost int `json:"lost,omitempty"`
	Bad  int `json:"bad,omitempty"`
	// SeenNs is from the first entry to the agent's first act, on the host's clock,
	// and LogNs the part of it that the log covers, on the guest's.
	SeenNs int64 `json:"seen_ns"`
	LogNs  int64 `json:"log_ns"`
	// BehindNs is how much the log's clock lost, by the kernel's own word, until the
	// kernel trusted what it is made of.
	BehindNs int64 `json:"behind_ns,omitempty"`
	// Clock is the time from the agent's first step to its last, on both clocks.
	Clock Clock `json:"clock"`
	// InitcallsNs is what all initcalls before the agent took, by the kernel's own
	// measure; those of the kernel itself.
	InitcallsNs int64  `json:"initcalls_ns"`
	Count       int    `json:"initcalls_count"`
	Initcalls   []Call `json:"initcalls,omitempty"` // costliest first
	Probes      []Call `json:"probes,omitempty"`    // of devices; costliest first
	// Gaps are times between two lines that no initcall explains; longest first.
	Gaps []Gap `json:"gaps,omitempty"`
}

// Clock is one interval on both clocks.
type Clock struct {
	HostNs  int64 `json:"host_ns"`
	GuestNs int64 `json:"guest_ns"`
}

// Call is an initcall or a probe.
type Call struct {
	Name string `json:"name"`
	// Owner is what it belongs to: a module, or a part of the kernel as far as its
	// name tells.
	Owner  string `json:"owner,omitempty"`
	AtNs   int64  `json:"at_ns"`
	TookNs int64  `json:"took_ns"`
	Result int    `json:"result,omitempty"`
}

// Gap is a time without a line.
type Gap struct {
	AtNs   int64  `json:"at_ns"`
	TookNs int64  `json:"took_ns"`
	After  string `json:"after"`
	Before string `json:"before"`
}

// Advice is one thing that would make the boot quicker.
type Advice struct {
	// Rule is its name, stable.
	Rule string `json:"rule"`
	// Ns is the time it is about: what could be saved at most, on the clock of
	// Clock.
	Ns    int64  `json:"ns"`
	Clock string `json:"clock"`
	// Text says what took the time and what to do; Figure what Ns was computed from.
	Text   string `json:"text"`
	Figure string `json:"figure"`
}
