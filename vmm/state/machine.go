package state

import (
	"github.com/duplex-run/duplex/vmm/kvm"
	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/serial"
	"github.com/duplex-run/duplex/vmm/virtio/mmio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// Version of the encoding.
const Version = 2

const magic = "DUPLEXVM"

// Bounds of what Decode takes.
const (
	MaxSize    = 4 << 20 // bytes in all; a machine of one CPU has about 10 KiB
	maxCPUs    = 255
	maxLeaves  = 256
	maxMSRs    = 256
	maxDevices = 24
	maxQueues  = 64
	maxOwn     = 64 << 10 // of a device's own state, in bytes
)

// Machine is all of a machine but its memory.
type Machine struct {
	Memory  uint64 // bytes
	CPUs    []CPU
	IRQ     kvm.IRQState
	Serial  serial.State
	Devices []mmio.State
	Slots   uint32 // places for further devices, behind these
}

// CPU is a vCPU: what its CPUID says, and its state.
type CPU struct {
	CPUID []kvm.CPUIDEntry
	kvm.CPUState
}

// Encode returns the machine as Decode takes it.
func (m *Machine) Encode() []byte {
	w := &coder{out: make([]byte, 0, 16<<10)}
	w.code(m)
	return w.out
}

// Decode reads a machine. Its errors wrap ErrFormat or ErrVersion.
func Decode(p []byte) (*Machine, error) {
	if len(p) > MaxSize {
		return nil, ErrFormat
	}
	m := &Machine{}
	r := &coder{in: p, reading: true}
	r.code(m)
	if r.err == nil && len(r.in) > 0 {
		r.err = ErrFormat
	}
	if r.err != nil {
		return nil, r.err
	}
	return m, nil
}

// code passes over every field in turn: it writes them, or reads them.
func (c *coder) code(m *Machine) {
	c.header()
	c.u64(&m.Memory)
	list(c, &m.CPUs, maxCPUs, cpu)
	for i := range m.IRQ.Chips {
		c.fixed(m.IRQ.Chips[i][:])
	}
	c.u64(&m.IRQ.Clock)
	port(c, &m.Serial)
	list(c, &m.Devices, maxDevices, device)
	c.u32(&m.Slots)
}

func cpu(c *coder, p *CPU) {
	list(c, &p.CPUID, maxLeaves, func(c *coder, e *kvm.CPUIDEntry) {
		for _, v := range []*uint32{&e.Function, &e.Index, &e.Flags, &e.EAX, &e.EBX, &e.ECX, &e.EDX} {
			c.u32(v)
		}
	})
	c.u32(&p.MPState)
	c.u32(&p.TSCKHz)
	for _, b := range [][]byte{p.Regs[:], p.Sregs[:], p.XSave[:], p.XCRs[:], p.DebugRegs[:], p.LAPIC[:], p.Events[:]} {
		c.fixed(b)
	}
	list(c, &p.MSRs, maxMSRs, func(c *coder, m *kvm.MSR) {
		c.u32(&m.Index)
		c.u64(&m.Data)
	})
}

func port(c *coder, s *serial.State) {
	for _, b := range []*byte{&s.IER, &s.LCR, &s.MCR, &s.Scratch, &s.Divisor[0], &s.Divisor[1]} {
		c.u8(b)
	}
	for _, b := range []*bool{&s.FIFO, &s.Overrun, &s.Transmitted, &s.Line} {
		c.bool(b)
	}
	c.bytes(&s.Received, maxOwn)
}

func device(c *coder, d *mmio.State) {
	for _, v := range []*uint32{&d.Type, &d.Status, &d.DeviceSel, &d.DriverSel, &d.QueueSel, &d.InterruptStatus, &d.ConfigGeneration} {
		c.u32(v)
	}
	c.u64(&d.Features)
	list(c, &d.Queues, maxQueues, virtqueue)
	c.bytes(&d.Device, maxOwn)
}

func virtqueue(c *coder, q *mmio.QueueState) {
	layout(c, &q.Layout)
	c.bool(&q.Ready)
	for _, v := range []*uint16{&q.NextAvail, &q.NextUsed, &q.Signalled} {
		c.u16(v)
	}
	c.bool(&q.Muted)
}

func layout(c *coder, l *queue.Layout) {
	c.u32(&l.Size)
	for _, a := range []*memory.GPA{&l.Desc, &l.Avail, &l.Used} {
		v := uint64(*a)
		c.u64(&v)
		*a = memory.GPA(v)
	}
}
