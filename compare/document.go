package compare

import (
	"github.com/duplex-run/duplex/compare/isolation"
	"github.com/duplex-run/duplex/compare/stats"
	"github.com/duplex-run/duplex/internal/workload"
)

// Schema names the format of a Document. Fields may be added under one name;
// it changes when one is removed or changes its meaning.
const Schema = "duplex.compare/1"

// Document is everything a comparison found: the --json output.
type Document struct {
	Schema   string   `json:"schema"`
	Host     Host     `json:"host"`
	Image    Image    `json:"image"`
	Settings Settings `json:"settings"`
	Runs     []Sample `json:"runs"`
	Summary  Summary  `json:"summary"`
}

// Measured returns how many samples were made of a side, failed ones included.
func (d *Document) Measured(side int) int {
	n := 0
	for _, r := range d.Runs {
		if d.Settings.Order[r.Order] == side {
			n++
		}
	}
	return n
}

// Host is where the runs happened; inside the lab it is the lab machine.
type Host struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Memory int64  `json:"memory"` // bytes
	Kernel string `json:"kernel"`
	BootID string `json:"boot_id"`
	KVM    string `json:"kvm"`    // the verdict on /dev/kvm
	Cgroup string `json:"cgroup"` // v1, v2, hybrid
	// Lab is set when the runs happened in the lab machine.
	Lab *Lab `json:"lab,omitempty"`
}

// Lab says why the lab was needed and how its clock runs.
type Lab struct {
	Why           string `json:"why"`
	Deterministic bool   `json:"deterministic"`
}

// Image is what was run.
type Image struct {
	Ref    string `json:"ref"`
	Digest string `json:"digest,omitempty"`
}

// Settings repeat the comparison: the same settings give the same order.
type Settings struct {
	// Sides are the isolations, two or three; equal ones make an A/A comparison.
	Sides   []Column `json:"sides"`
	N       int      `json:"n"`
	Warmup  int      `json:"warmup"`
	Seed    uint64   `json:"seed"`
	Flags   []string `json:"flags"`   // given to every run; values of --env left out
	Command []string `json:"command"` // empty: the image's own
	// Order is the side (an index into Sides) of every run, in the order they were planned:
	// runs[i] is of side order[i].
	Order []int `json:"order"`
	// IgnoreFailure counts samples whose workload ended with a status but 0.
	IgnoreFailure bool `json:"ignore_failure"`
}

// Sample is one run.
type Sample struct {
	Isolation Column `json:"isolation"`
	Order     int    `json:"order"` // index into Settings.Order, from 0
	// PhasesNs is the time from exec to each phase, in nanoseconds.
	PhasesNs map[string]int64 `json:"phases_ns"`
	Exit     SampleExit       `json:"exit"`
	// CPUNs is host CPU time, user and system, of the whole process tree.
	CPUNs  int64             `json:"cpu_ns"`
	Memory map[string]int64  `json:"memory"` // peaks in bytes by kind
	Exits  map[string]uint64 `json:"exits"`  // VM exits by reason; null in a container
}

// SampleExit is how a sample ended.
type SampleExit struct {
	workload.Exit
	Status int `json:"status"` // of the duplex process
	// Failed says why the sample does not count; empty when it does.
	Failed string `json:"failed,omitempty"`
	// Stdout is what the workload wrote.
	StdoutBytes  int64  `json:"stdout_bytes"`
	StdoutSHA256 string `json:"stdout_sha256"`
}

// Summary is made from the runs; nothing in it is measured apart but Isolation.
type Summary struct {
	Metrics []Metric `json:"metrics"`
	// Failed counts failed samples by side. They are in Runs and in no metric.
	Failed []int `json:"failed"`
	// Interrupted says that not every planned run was made.
	Interrupted bool `json:"interrupted,omitempty"`
	// SameOutput says that all samples that count wrote the same bytes to stdout.
	SameOutput bool `json:"same_output"`
	// Isolation is what the probe saw on each side; null without it.
	Isolation *Study `json:"isolation"`
	// Snapshot is what the warm side's runs are restored from; absent without one.
	Snapshot *Snapshot `json:"snapshot,omitempty"`
}

// Snapshot is what was made once, before any run, and is in no run's time.
type Snapshot struct {
	// CreateNs is how long `duplex snapshot create` took, from exec to its end, in
	// nanoseconds.
	CreateNs int64 `json:"create_ns"`
	// Bytes is what it takes on the disk.
	Bytes int64 `json:"bytes"`
}

// Metric is one quantity over all samples that count.
type Metric struct {
	Name string `json:"name"`
	// Kind: "reached" is the time from exec to a phase, "step" the time from the
	// phase before it, "cpu", "memory" and "exits" are what they say.
	Kind string `json:"kind"`
	Unit string `json:"unit"` // "ns", "bytes" or "count"
	// Sides is null for a side that has no such quantity.
	Sides []*Side `json:"sides"`
	// Difference is of side 0 minus side 1; null unless both sides have the
	// quantity and it means the same on both.
	Difference *stats.Difference `json:"difference"`
	// Smaller is the side (0 or 1) that may be called smaller, or -1: the
	// interval holds zero, or the difference is within the noise floor.
	Smaller int `json:"smaller"`
	// Pairs are the differences of every two sides that can be compared, the one
	// above too; absent when there are only two sides.
	Pairs []Pair `json:"pairs,omitempty"`
}

// Pair is a Metric on two sides.
type Pair struct {
	A int `json:"a"` // a side, and
	B int `json:"b"` // a later one
	// Difference is of A minus B.
	Difference stats.Difference `json:"difference"`
	// Smaller is the side, A or B, that may be called smaller, or -1.
	Smaller int `json:"smaller"`
}

// pairs returns the differences: of two sides too.
func (m *Metric) pairs() []Pair {
	if m.Pairs == nil && m.Difference != nil {
		return []Pair{{A: 0, B: 1, Difference: *m.Difference, Smaller: m.Smaller}}
	}
	return m.Pairs
}

// smallest returns the side that may be called smaller than every other that it can
// be compared with, or -1.
func (m *Metric) smallest() int {
	wins, pairs := map[int]int{}, map[int]int{}
	for _, p := range m.pairs() {
		pairs[p.A]++
		pairs[p.B]++
		wins[p.Smaller]++
	}
	for side := range m.Sides {
		if pairs[side] > 0 && wins[side] == pairs[side] {
			return side
		}
	}
	return -1
}

// Side is a Metric on one side.
type Side struct {
	N      int     `json:"n"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	// P99 is null below stats.MinP99 samples.
	P99 *float64 `json:"p99"`
	// FarOut lists the outliers, by Sample.Order. They are part of the rest.
	FarOut []int `json:"far_out,omitempty"`
}

// Study is the isolation part.
type Study struct {
	Host  isolation.HostFacts `json:"host"`
	Sides []StudySide         `json:"sides"`
}

// StudySide is what the probe found on one side, or why it did not.
type StudySide struct {
	Isolation   Column                 `json:"isolation"`
	Observation *isolation.Observation `json:"observation"`
	Findings    []isolation.Finding    `json:"findings"`
	Error       string                 `json:"error,omitempty"`
}
