package vmm

import (
	"encoding/binary"
	"fmt"

	"github.com/duplex-run/duplex/vmm/kvm"
	"github.com/duplex-run/duplex/vmm/trace"
)

// vcpu is one virtual CPU: KVM's, and what is counted of it. Its methods run on
// the vCPU's own goroutine.
type vcpu struct {
	vm     *VM
	id     int
	kvm    *kvm.VCPU
	cpuid  []kvm.CPUIDEntry
	counts cpuCounters
	trace  *trace.Buffer // nil: not traced

	counters *kvm.Counters // nil: not asked for, or KVM has none
}

// loop enters the guest and handles its exits until somebody calls end.
func (v *VM) loop(c *vcpu) error {
	c.kvm.Bind()
	defer c.kvm.Unbind()
	if c.id == 0 {
		v.event(Entered)
	}
	if v.cfg.EnterVCPU != nil {
		if err := v.cfg.EnterVCPU(); err != nil {
			return fmt.Errorf("prepare vCPU %d: %w", c.id, err)
		}
	}
	for v.gate.pass() {
		if err := c.enter(); err != nil {
			return err
		}
	}
	c.trace.Flush()
	return nil
}

// enter runs the guest and handles its exits until a signal interrupts it or the
// run ends. When it was interrupted nothing of an exit is left to complete: KVM
// does that at the next KVM_RUN, before it looks whether to return at once.
func (c *vcpu) enter() error {
	for !c.vm.stop.Load() {
		reason, err := c.kvm.Run()
		if err != nil {
			return err
		}
		c.counts.exit(reason)
		if reason == kvm.ExitIntr { // a signal: the gate knows what it is about
			c.kvm.Unkick()
			return nil
		}
		began := c.trace.Now()
		access, err := c.handle(reason)
		if err != nil {
			return err
		}
		access.Time, access.Kind = began, trace.Kind(min(reason, maxReason-1))
		c.trace.Add(access)
	}
	return nil
}

// step records a mark or an event.
func (c *vcpu) step(kind trace.Kind, value uint64) {
	c.trace.Add(trace.Record{Time: c.trace.Now(), Kind: kind, Addr: value})
}

// handle serves one exit. What the guest may cause ends the run; an error is
// KVM breaking its own rules. The record has what the guest accessed.
func (c *vcpu) handle(reason kvm.ExitReason) (trace.Record, error) {
	switch reason {
	case kvm.ExitIO:
		return c.portAccess()
	case kvm.ExitMMIO:
		return c.mmioAccess()
	case kvm.ExitShutdown:
		c.vm.end(Exit{TripleFault, c.whereUnlessReset()})
	case kvm.ExitSystemEvent:
		c.systemEvent(c.kvm.SystemEventType())
	case kvm.ExitInternalError:
		c.vm.end(Exit{InternalError, c.kvm.InternalError() + ", " + c.where()})
	case kvm.ExitFailEntry:
		c.vm.end(Exit{InternalError, fmt.Sprintf("hardware refused the entry: %#x, %s", c.kvm.FailEntryReason(), c.where())})
	default:
		c.vm.end(Exit{InternalError, fmt.Sprintf("unexpected exit %v, %s", reason, c.where())})
	}
	return trace.Record{}, nil
}

// systemEvent is a guest's hypercall for power: KVM_SYSTEM_EVENT_*.
func (c *vcpu) systemEvent(event uint32) {
	const shutdown, reset = 1, 2
	switch event {
	case shutdown:
		c.vm.end(Exit{Reason: PowerOff})
	case reset:
		c.vm.end(Exit{Reason: Reset})
	default:
		c.vm.end(Exit{InternalError, fmt.Sprintf("KVM system event %d", event)})
	}
}

func (c *vcpu) portAccess() (trace.Record, error) {
	x, err := c.kvm.IO()
	if err != nil {
		return trace.Record{}, err
	}
	rec := trace.Record{
		Addr: uint64(x.Port), Write: x.Write, Size: uint8(x.Size),
		Count: uint32(len(x.Data) / x.Size), Value: firstBytes(x.Data),
	}
	c.counts.port(x.Port)
	for item := x.Data; len(item) > 0 && !c.vm.stop.Load(); item = item[x.Size:] {
		if x.Write {
			c.vm.ports.Write(uint64(x.Port), item[:x.Size])
		} else {
			c.vm.ports.Read(uint64(x.Port), item[:x.Size])
		}
	}
	if x.Port == portMarks && x.Write {
		c.step(trace.Mark, uint64(x.Data[0]))
	}
	return rec, nil
}

// firstBytes is the first four bytes of p, for a trace.
func firstBytes(p []byte) uint32 {
	var b [4]byte
	copy(b[:], p)
	return binary.LittleEndian.Uint32(b[:])
}

func (c *vcpu) mmioAccess() (trace.Record, error) {
	x, err := c.kvm.MMIO()
	if err != nil {
		return trace.Record{}, err
	}
	rec := trace.Record{Addr: x.Addr, Write: x.Write, Size: uint8(len(x.Data)), Count: 1, Value: firstBytes(x.Data)}
	if x.Write {
		c.vm.mmio.Write(x.Addr, x.Data)
	} else {
		c.vm.mmio.Read(x.Addr, x.Data)
	}
	return rec, nil
}

// whereUnlessReset is where, or nothing when KVM has reset the vCPU, as it does
// after a shutdown on AMD processors.
func (c *vcpu) whereUnlessReset() string {
	const resetVector = 0xfff0
	if regs, err := c.kvm.Regs(); err == nil && regs.RIP == resetVector {
		return ""
	}
	return c.where()
}

// where says where the guest was, for an Exit's detail.
func (c *vcpu) where() string {
	regs, err := c.kvm.Regs()
	if err != nil {
		return err.Error()
	}
	sregs, err := c.kvm.Sregs()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("RIP %#x RSP %#x CR0 %#x CR2 %#x CR3 %#x CR4 %#x EFER %#x",
		regs.RIP, regs.RSP, sregs.CR0, sregs.CR2, sregs.CR3, sregs.CR4, sregs.EFER)
}
