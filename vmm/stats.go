package vmm

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

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
	// Kicks counts the notifications of each device, in the order of
	// Config.Devices, that were not merged with one before.
	Kicks []uint64
	// CPUTime is the processor time the vCPUs' threads have used.
	CPUTime time.Duration
	// Resident is the guest memory that is in host memory, in bytes, when the run
	// ended; 0 before. See VM.Resident.
	Resident uint64
	// KernelBytes and InitrdBytes were put into guest memory before the run;
	// DiskBytes is what the guest has read from its disks.
	KernelBytes, InitrdBytes, DiskBytes uint64
	// NetworkIn and NetworkOut are the bytes of the frames that the guest received
	// and sent.
	NetworkIn, NetworkOut uint64
}

// maxReason is above every exit reason that KVM has, so far 40.
const maxReason = 64

// cpuCounters are written by one vCPU's goroutine and read by anybody.
type cpuCounters struct {
	exits [maxReason]atomic.Uint64
	mu    sync.Mutex
	ports map[uint16]uint64
}

func (c *cpuCounters) exit(r kvm.ExitReason) { c.exits[min(r, maxReason-1)].Add(1) }

func (c *cpuCounters) port(p uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ports == nil {
		c.ports = map[uint16]uint64{}
	}
	c.ports[p]++
}

func (c *cpuCounters) add(s *Stats) {
	for r := range c.exits {
		if n := c.exits[r].Load(); n > 0 {
			s.Exits[kvm.ExitReason(r).String()] += n
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, n := range maps.All(c.ports) {
		s.Ports[p] += n
	}
}

// Stats returns the counts so far. Safe at any time before Close.
func (v *VM) Stats() Stats {
	s := Stats{
		Exits: map[string]uint64{}, Ports: map[uint16]uint64{},
		CPUTime: v.cpuTime(), Resident: v.resident.Load(),
	}
	for _, c := range v.cpus {
		c.counts.add(&s)
	}
	s.KernelBytes, s.InitrdBytes = v.loaded.kernel, v.loaded.initrd
	for i, w := range v.wires {
		s.Kicks = append(s.Kicks, w.kicked.Load())
		if d, ok := v.cfg.Devices[i].(interface{ BytesRead() uint64 }); ok {
			s.DiskBytes += d.BytesRead()
		}
		if d, ok := v.cfg.Devices[i].(interface{ Traffic() (in, out uint64) }); ok {
			in, out := d.Traffic()
			s.NetworkIn, s.NetworkOut = s.NetworkIn+in, s.NetworkOut+out
		}
	}
	return s
}

// Counts are KVM's own of all vCPUs together, by the kernel's names; nil without
// Config.Count or before Linux 5.14. A call from a vCPU's goroutine would be refused
// by its thread's jail. Not safe for concurrent use; before Close.
func (v *VM) Counts() map[string]uint64 {
	var out map[string]uint64
	for _, c := range v.cpus {
		if c.counters == nil {
			return nil
		}
		one, err := c.counters.Read()
		if err != nil {
			return nil
		}
		if out == nil {
			out = one
			continue
		}
		for name, n := range one {
			out[name] += n
		}
	}
	return out
}

// Resident is the guest memory that is in host memory now, in bytes; 0 where the
// host cannot tell. It looks at every page: milliseconds a GiB. Precondition: the
// VM is not closed.
func (v *VM) Resident() uint64 { return resident(v.mem) }

// resident is 0 where the host cannot tell, which is no reason to fail a run.
func resident(m *memory.Memory) uint64 {
	n, err := m.Resident()
	if err != nil {
		return 0
	}
	return n
}
