package vmm

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/duplex-run/duplex/vmm/kvm"
	"github.com/duplex-run/duplex/vmm/state"
)

// ErrNotPaused reports a Save of a VM whose vCPUs run.
var ErrNotPaused = errors.New("the VM is not paused")

// Save returns the state of a paused VM and writes its memory to an empty file,
// from which Restore goes on. Requests that devices have taken are finished first.
// The VM is of no use afterwards: end it.
func (v *VM) Save(memory *os.File) (*state.Machine, error) {
	if !v.gate.held() {
		return nil, ErrNotPaused
	}
	m := &state.Machine{Memory: v.cfg.Memory, Slots: uint32(v.cfg.Slots)}
	v.slow.Wait()
	for i, w := range v.wires {
		d, err := w.regs.Save()
		if err != nil {
			return nil, fmt.Errorf("save virtio device %d (%s): %w", i, deviceName(v.cfg.Devices[i].Type()), err)
		}
		m.Devices = append(m.Devices, *d)
	}
	m.Serial = v.serial.State()
	for _, c := range v.cpus {
		s, err := c.kvm.State(v.msrs)
		if err != nil {
			return nil, fmt.Errorf("save vCPU %d: %w", c.id, err)
		}
		m.CPUs = append(m.CPUs, state.CPU{CPUID: c.cpuid, CPUState: *s})
	}
	irq, err := v.vm.State()
	if err != nil {
		return nil, fmt.Errorf("save the interrupt controllers: %w", err)
	}
	m.IRQ = *irq
	return m, v.mem.WriteTo(memory)
}

// savedMSRs are the MSRs to save of those that KVM lists, in an order in which
// they can be set.
func savedMSRs(listed []uint32) []uint32 {
	const (
		hyperVFirst, hyperVLast = 0x40000000, 0x400001ff // no guest is offered Hyper-V, and asking makes KVM set it up
		tscDeadline             = 0x6e0
	)
	out := slices.DeleteFunc(slices.Clone(listed), func(i uint32) bool {
		return i >= hyperVFirst && i <= hyperVLast || i == tscDeadline || slices.Contains(rangeMSRs, i)
	})
	out = append(out, rangeMSRs...)
	return append(out, tscDeadline) // see kvm.VCPU.SetState
}

// rangeMSRs are the memory type range registers (SDM volume 3, section 12.11),
// which KVM keeps but does not list.
var rangeMSRs = []uint32{
	0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207, 0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f,
	0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f, 0x2ff,
}

// listMSRs is savedMSRs of this KVM.
func listMSRs(sys *kvm.System) ([]uint32, error) {
	listed, err := sys.MSRs()
	if err != nil {
		return nil, err
	}
	return savedMSRs(listed), nil
}
