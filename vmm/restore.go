package vmm

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/duplex-run/duplex/vmm/kvm"
	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/state"
)

// ErrOtherMachine reports a state that is of another machine than the Config's,
// or of another processor than this.
var ErrOtherMachine = errors.New("the saved machine is another")

// Restore makes a VM that goes on where the one that m was saved of stopped, with
// the memory that Save wrote. The Config is like that of the other VM: as much
// memory, as many CPUs, the same kinds of devices in the same order, and behind them
// new ones for the other VM's Slots, which the guest does not know yet. Kernel, Initrd,
// Cmdline and Slots mean nothing. The file is mapped, not read, and never changed: many
// VMs may be restored from it, and share what none of them writes to. Nothing in m
// is trusted; what is in the memory is the guest's affair.
//
// On error nothing is left behind, and the Devices stay the caller's.
func Restore(cfg Config, m *state.Machine, mem *os.File) (*VM, error) {
	switch {
	case m.Memory != cfg.Memory:
		return nil, fmt.Errorf("%w: %d bytes of memory, not %d", ErrOtherMachine, m.Memory, cfg.Memory)
	case len(m.CPUs) != cfg.CPUs:
		return nil, fmt.Errorf("%w: %d CPUs, not %d", ErrOtherMachine, len(m.CPUs), cfg.CPUs)
	case m.Slots > MaxDevices || len(cfg.Devices) < len(m.Devices) || len(cfg.Devices) > len(m.Devices)+int(m.Slots):
		return nil, fmt.Errorf("%w: %d devices and %d slots, not %d devices", ErrOtherMachine, len(m.Devices), m.Slots, len(cfg.Devices))
	}
	cfg.Slots = len(m.Devices) + int(m.Slots) - len(cfg.Devices)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	v := blank(cfg)
	var err error
	if v.mem, err = memory.Map(mem, cfg.Memory); err == nil {
		err = v.rebuild(m)
	}
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	v.devices = cfg.Devices
	return v, nil
}

func (v *VM) rebuild(m *state.Machine) error {
	sys, err := openKVM()
	if err != nil {
		return err
	}
	err = v.create(sys)
	if err = errors.Join(err, sys.Close()); err != nil {
		return err
	}
	v.event(Created)
	if err := v.attach(); err != nil {
		return err
	}
	if err := v.setCPUs(m.CPUs); err != nil {
		return err
	}
	if err := v.vm.SetState(&m.IRQ); err != nil {
		return fmt.Errorf("restore the interrupt controllers: %w", err)
	}
	if err := v.setDevices(m); err != nil {
		return err
	}
	if err := v.restored(); err != nil {
		return err
	}
	if err := v.beginTrace(); err != nil {
		return err
	}
	v.event(Loaded)
	return nil
}

func (v *VM) setCPUs(saved []state.CPU) error {
	for i, c := range v.cpus {
		if other := differs(c.cpuid, saved[i].CPUID); other != "" {
			return fmt.Errorf("%w: of another processor: %s", ErrOtherMachine, other)
		}
		s := saved[i].CPUState
		clearBusy(&s, c.cpuid)
		if err := c.kvm.SetState(&s); err != nil {
			return fmt.Errorf("restore vCPU %d: %w", i, err)
		}
		if err := c.kvm.Paused(); err != nil {
			return err
		}
	}
	return nil
}

// clearBusy undoes a change that KVM makes when it is asked for the registers of an
// AMD processor, whose task register does not say that its segment is busy: KVM says
// so all the same. It makes no difference to the processor, but QEMU's emulation of
// it (7.2, helper_check_io) then finds no I/O permission map, and a program with
// ioperm(2) gets #GP.
func clearBusy(s *kvm.CPUState, leaves []kvm.CPUIDEntry) {
	const trType, busy = 6*24 + 14, 1 << 1 // struct kvm_sregs: tr.type
	if l := leaf(leaves, leafVendor); l != nil && l.EBX != vendorIntel {
		s.Sregs[trType] &^= busy
	}
}

// differs says in what the CPUID leaves of a saved vCPU differ from one here; "" if
// in nothing.
func differs(here, saved []kvm.CPUIDEntry) string {
	if slices.Equal(here, saved) {
		return ""
	}
	if len(here) != len(saved) {
		return fmt.Sprintf("%d CPUID leaves, here are %d", len(saved), len(here))
	}
	for i, h := range here {
		if s := saved[i]; s != h {
			return fmt.Sprintf("CPUID leaf %#x.%d is %08x %08x %08x %08x, here %#x.%d is %08x %08x %08x %08x",
				s.Function, s.Index, s.EAX, s.EBX, s.ECX, s.EDX, h.Function, h.Index, h.EAX, h.EBX, h.ECX, h.EDX)
		}
	}
	return ""
}

// setDevices restores the devices that were saved. They may interrupt the guest by now. Every
// queue is kicked: a notification that was on its way is lost.
func (v *VM) setDevices(m *state.Machine) error {
	if err := v.serial.SetState(m.Serial); err != nil {
		return err
	}
	known := v.wires[:len(m.Devices)]
	for i, w := range known {
		if err := w.regs.Restore(&m.Devices[i]); err != nil {
			return fmt.Errorf("restore virtio device %d (%s): %w", i, deviceName(v.cfg.Devices[i].Type()), err)
		}
	}
	for _, w := range known {
		for _, k := range w.kicks {
			k.signal()
		}
	}
	return nil
}
