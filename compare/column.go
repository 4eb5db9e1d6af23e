package compare

import "github.com/duplex-run/duplex/internal/workload"

// Column is a way to run the image: an isolation, or a microVM that does not boot.
type Column string

// The columns.
const (
	VM        = Column(workload.VM)
	Container = Column(workload.Container)
	// WarmVM is a microVM restored from a snapshot: `duplex run --vm --warm`.
	WarmVM Column = "vm-warm"
)

// MaxColumns is how many are compared at once.
const MaxColumns = 3

// Valid says whether c is one of the columns.
func (c Column) Valid() bool { return c == VM || c == Container || c == WarmVM }

// isolation is what runs the image.
func (c Column) isolation() workload.Isolation {
	if c == WarmVM {
		return workload.VM
	}
	return workload.Isolation(c)
}

// flags make `duplex run` run it.
func (c Column) flags() []string {
	flags := []string{"--isolation=" + string(c.isolation())}
	if c == WarmVM {
		flags = append(flags, "--warm")
	}
	return flags
}
