package kvm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// CPUState is everything KVM knows of a vCPU, as the structures of <linux/kvm.h>
// that its ioctls copy.
type CPUState struct {
	MPState   uint32     // KVM_MP_STATE_*
	TSCKHz    uint32     // of the guest's time stamp counter
	Regs      [144]byte  // struct kvm_regs
	Sregs     [312]byte  // struct kvm_sregs
	XSave     [4096]byte // struct kvm_xsave
	XCRs      [392]byte  // struct kvm_xcrs
	DebugRegs [128]byte  // struct kvm_debugregs
	LAPIC     [1024]byte // struct kvm_lapic_state
	Events    [64]byte   // struct kvm_vcpu_events
	MSRs      []MSR
}

// State reads the vCPU's state, with the given MSRs as far as it has them.
// Precondition: Run returned ExitIntr last, so that nothing of an exit is left
// to complete, and no vCPU of the VM is in Run.
//
// The order is that of Firecracker and QEMU: KVM_GET_MP_STATE may accept a
// pending INIT or SIPI and change what the others say, and the events come last
// as the other calls may change them.
func (c *VCPU) State(msrs []uint32) (*CPUState, error) {
	s := &CPUState{}
	khz, err := ioctl(c.fd, reqGetTSCKHz, 0)
	if err != nil {
		return nil, wrap("KVM_GET_TSC_KHZ", err)
	}
	s.TSCKHz = uint32(khz)
	if err := errors.Join(
		wrap("KVM_GET_MP_STATE", ioctlPtr(c.fd, reqGetMPState, &s.MPState)),
		wrap("KVM_GET_REGS", ioctlPtr(c.fd, reqGetRegs, &s.Regs)),
		wrap("KVM_GET_SREGS", ioctlPtr(c.fd, reqGetSregs, &s.Sregs)),
		wrap("KVM_GET_XSAVE", ioctlPtr(c.fd, reqGetXSave, &s.XSave)),
		wrap("KVM_GET_XCRS", ioctlPtr(c.fd, reqGetXCRs, &s.XCRs)),
		wrap("KVM_GET_DEBUGREGS", ioctlPtr(c.fd, reqGetDebugRegs, &s.DebugRegs)),
		wrap("KVM_GET_LAPIC", ioctlPtr(c.fd, reqGetLAPIC, &s.LAPIC)),
	); err != nil {
		return nil, err
	}
	if s.MSRs, err = c.readMSRs(msrs); err != nil {
		return nil, err
	}
	return s, wrap("KVM_GET_VCPU_EVENTS", ioctlPtr(c.fd, reqGetVCPUEvents, &s.Events))
}

// SetState gives a new vCPU, whose CPUID is set, the state of another.
//
// The order matters: the frequency of the time stamp counter before its value;
// the local APIC after KVM_SET_SREGS, which has its base; IA32_TSC_DEADLINE
// after the local APIC, whose timer it arms (hence MSRs must have it last); the
// events last, because KVM_SET_SREGS may queue an interrupt too.
func (c *VCPU) SetState(s *CPUState) error {
	khz, err := ioctl(c.fd, reqGetTSCKHz, 0)
	if err != nil {
		return wrap("KVM_GET_TSC_KHZ", err)
	}
	if uint32(khz) != s.TSCKHz {
		if _, err := ioctl(c.fd, reqSetTSCKHz, uintptr(s.TSCKHz)); err != nil {
			return fmt.Errorf("KVM_SET_TSC_KHZ: the time stamp counter runs at %d kHz here, not %d: %w", khz, s.TSCKHz, err)
		}
	}
	for _, set := range []func() error{
		func() error { return wrap("KVM_SET_MP_STATE", ioctlPtr(c.fd, reqSetMPState, &s.MPState)) },
		func() error { return wrap("KVM_SET_REGS", ioctlPtr(c.fd, reqSetRegs, &s.Regs)) },
		func() error { return wrap("KVM_SET_SREGS", ioctlPtr(c.fd, reqSetSregs, &s.Sregs)) },
		func() error { return wrap("KVM_SET_XSAVE", ioctlPtr(c.fd, reqSetXSave, &s.XSave)) },
		func() error {
			if s.XCRs[0] == 0 { // nr_xcrs: a processor without XSAVE
				return nil
			}
			return wrap("KVM_SET_XCRS", ioctlPtr(c.fd, reqSetXCRs, &s.XCRs))
		},
		func() error { return wrap("KVM_SET_DEBUGREGS", ioctlPtr(c.fd, reqSetDebugRegs, &s.DebugRegs)) },
		func() error { return wrap("KVM_SET_LAPIC", ioctlPtr(c.fd, reqSetLAPIC, &s.LAPIC)) },
		func() error { return c.SetMSRs(s.MSRs) },
		func() error { return wrap("KVM_SET_VCPU_EVENTS", ioctlPtr(c.fd, reqSetVCPUEvents, &s.Events)) },
	} {
		if err := set(); err != nil {
			return err
		}
	}
	return nil
}

// Paused tells the guest, if it has a kvm-clock, that it did not run for some
// time, so that its watchdogs do not bark (KVM_KVMCLOCK_CTRL).
func (c *VCPU) Paused() error {
	_, err := ioctl(c.fd, reqKVMClockCtrl, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil // it has none
	}
	return wrap("KVM_KVMCLOCK_CTRL", err)
}

// readMSRs reads those of the MSRs that the vCPU has, in their order.
func (c *VCPU) readMSRs(indices []uint32) ([]MSR, error) {
	var out []MSR
	for len(indices) > 0 {
		t := &msrTable{n: uint32(min(len(indices), maxMSRs))}
		for i := range t.n {
			t.entries[i].Index = indices[i]
		}
		n, err := ioctlCount(c.fd, reqGetMSRs, t)
		if err != nil {
			return nil, wrap("KVM_GET_MSRS", err)
		}
		out = append(out, t.entries[:n]...)
		if n < int(t.n) {
			n++ // KVM stops at one that it does not have
		}
		indices = indices[n:]
	}
	return out, nil
}

// msrList is struct kvm_msr_list.
type msrList struct {
	n       uint32
	indices [maxMSRList]uint32
}

// maxMSRList is above what KVM_GET_MSR_INDEX_LIST has, some 200.
const maxMSRList = 1024

// MSRs returns the indices of the MSRs that KVM wants saved and restored with a
// guest (KVM_GET_MSR_INDEX_LIST).
func (s *System) MSRs() ([]uint32, error) {
	l := &msrList{n: maxMSRList}
	if err := ioctlPtr(s.fd, reqGetMSRIndexList, l); err != nil {
		return nil, wrap("KVM_GET_MSR_INDEX_LIST", err)
	}
	return append([]uint32(nil), l.indices[:min(l.n, maxMSRList)]...), nil
}

// The irqchips, by KVM's numbers.
const (
	picMaster = iota
	picSlave
	ioAPIC
	numIRQChips
)

type irqChip struct {
	id, _ uint32
	state [512]byte
}

// IRQState is what KVM knows of a VM beside its memory and vCPUs.
type IRQState struct {
	Chips [numIRQChips][512]byte // PICs and I/O APIC: the union in struct kvm_irqchip
	Clock uint64                 // kvm-clock, in nanoseconds
}

// clockData is struct kvm_clock_data, of which the clock alone is used.
type clockData struct {
	clock uint64
	_     [5]uint64
}

// State reads the irqchips and the clock. Precondition: no vCPU is in Run.
func (v *VM) State() (*IRQState, error) {
	s := &IRQState{}
	for i := range s.Chips {
		chip := irqChip{id: uint32(i)}
		if err := ioctlPtr(v.fd, reqGetIRQChip, &chip); err != nil {
			return nil, wrap("KVM_GET_IRQCHIP", err)
		}
		s.Chips[i] = chip.state
	}
	var c clockData
	err := ioctlPtr(v.fd, reqGetClock, &c)
	s.Clock = c.clock
	return s, wrap("KVM_GET_CLOCK", err)
}

// SetState sets the irqchips and the clock, which goes on from where it was.
// Precondition: the vCPUs have their states, as the I/O APIC delivers what it has
// pending.
func (v *VM) SetState(s *IRQState) error {
	for i := range s.Chips {
		chip := irqChip{id: uint32(i), state: s.Chips[i]}
		if err := ioctlPtr(v.fd, reqSetIRQChip, &chip); err != nil {
			return wrap("KVM_SET_IRQCHIP", err)
		}
	}
	return wrap("KVM_SET_CLOCK", ioctlPtr(v.fd, reqSetClock, &clockData{clock: s.Clock}))
}
