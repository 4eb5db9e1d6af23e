package vmmbench

// The monitors that are compared.
const (
	Duplex = "duplex"
	QEMU   = "QEMU"
)

// Monitors in the order of the table's columns.
var Monitors = []string{Duplex, QEMU}

// Record is one result, a line of JSON between the lab and the host.
type Record struct {
	Monitor string `json:"monitor"`
	Run     int    `json:"run"` // from 0
	// Name is that of a benchmark, or one of the names below.
	Name string `json:"name"`
	Measure
	// Counters are differences over the benchmark; nil where the kernel has none.
	Counters *Counters `json:"counters,omitempty"`
	// Memory is set for the name RecordMemory, in bytes.
	Memory *Memory `json:"memory,omitempty"`
	// Text is a version, or why the benchmark failed.
	Text string `json:"text,omitempty"`
}

// Names of records that are no benchmark's.
const (
	RecordMemory  = "memory"
	RecordVersion = "version" // of the guest, if Monitor is "", else the monitor's
	RecordFailed  = "failed"
	RecordStart   = "start" // Ns from exec to the first KVM_RUN
	RecordIdle    = "idle memory"
)

// Counters are KVM's, from its files in debugfs: the same for every monitor.
type Counters struct {
	Exits  int64 `json:"exits"`  // of the hardware
	User   int64 `json:"user"`   // that went to the monitor: MMIO and ports
	Kicks  int64 `json:"kicks"`  // notifications of virtqueues, which KVM serves itself
	Kernel int64 `json:"kernel"` // other accesses KVM served itself: the interrupt controllers
	Halts  int64 `json:"halts"`  // HLT of an idle guest
	Inject int64 `json:"inject"` // interrupts given to the guest
}

// Sub returns c - d, at least 0.
func (c Counters) Sub(d Counters) Counters {
	return Counters{
		max(0, c.Exits-d.Exits), max(0, c.User-d.User), max(0, c.Kicks-d.Kicks), max(0, c.Kernel-d.Kernel),
		max(0, c.Halts-d.Halts), max(0, c.Inject-d.Inject),
	}
}

// Memory is the proportional set size (PSS) of all processes of a machine, in
// bytes: a page that n processes share counts as 1/n of it.
type Memory struct {
	Guest   int64 `json:"guest"`   // mappings of guest memory
	Program int64 `json:"program"` // the monitor's program file and libraries
	Heap    int64 `json:"heap"`    // anonymous memory but guest memory
	Other   int64 `json:"other"`   // other files, shared memory
	// Processes is how many there were.
	Processes int `json:"processes"`
	// Private is what of the last three no file holds: what the host has less of
	// while the machine runs, besides guest memory.
	Private int64 `json:"private"`
}

// Beside is what is not guest memory.
func (m *Memory) Beside() int64 { return m.Program + m.Heap + m.Other }
