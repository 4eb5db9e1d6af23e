package vmm

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/duplex-run/duplex/vmm/kvm"
	"github.com/duplex-run/duplex/vmm/memory"
)

// Stats is what a VM has cost so far.
type Stats struct {
	// Exits counts the returns from KVM_RUN by reason ("io", "mmio", "intr").
	// Notifications of virtqueues and interrupts of devices are not among them:
	// KVM handles both without leaving KVM_RUN.
	Exits map[string]uint64
	// Ports counts the I/O port exits by port.
	Ports map[uint16]uint64
	// Resident is the guest memory that is in host memory, in bytes.
	Resident uint64
}

// counters are written by the vCPU's goroutine and read by anybody.
type counters struct {
	mu       sync.Mutex
	exits    map[string]uint64
	ports    map[uint16]uint64
	resident atomic.Uint64 // when the run ended
}

func (c *counters) exit(r kvm.ExitReason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.exits == nil {
		c.exits = map[string]uint64{}
	}
	c.exits[r.String()]++
}

func (c *counters) port(p uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ports == nil {
		c.ports = map[uint16]uint64{}
	}
	c.ports[p]++
}

// Stats returns the counts so far. Resident is measured when Run ends; it is 0
// before. Safe at any time, also after Close.
func (v *VM) Stats() Stats {
	v.counts.mu.Lock()
	defer v.counts.mu.Unlock()
	return Stats{
		Exits: maps.Clone(v.counts.exits), Ports: maps.Clone(v.counts.ports),
		Resident: v.counts.resident.Load(),
	}
}

// resident is 0 where the host cannot tell, which is no reason to fail a run.
func resident(m *memory.Memory) uint64 {
	n, err := m.Resident()
	if err != nil {
		return 0
	}
	return n
}
