package microvm

import (
	"errors"
	"fmt"
	"os"

	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/microvm/snapshot"
	"github.com/duplex-run/duplex/vmm"
	"github.com/duplex-run/duplex/vmm/state"
)

// restoring is what a machine is restored from.
type restoring struct {
	machine []byte   // encoded, not trusted
	memory  *os.File // open for reading; owned
}

// resume makes the machine go on from the snapshot, whose memory it takes.
func (m *machine) resume(s *snapshot.Snapshot) {
	m.restored = true
	m.options.restore = &restoring{machine: s.Machine, memory: s.TakeMemory()}
	m.hardware.Kernel, m.hardware.Initrd = "", ""
}

// close lets go of the memory. It is idempotent.
func (r *restoring) close() error {
	if r == nil || r.memory == nil {
		return nil
	}
	f := r.memory
	r.memory = nil
	return f.Close()
}

// pack puts it into a parcel.
func (r *restoring) pack(p *parcel) error {
	p.add(fileMemory, r.memory)
	r.memory = nil // the parcel's
	f, err := scratch("machine")
	if err != nil {
		return err
	}
	p.add(fileMachine, f)
	_, err = f.Write(r.machine)
	return err
}

// unpackRestoring is pack's other end; nil when there is nothing to restore.
func unpackRestoring(files unpacked) (*restoring, error) {
	memory, machine := files.take(fileMemory), files.take(fileMachine)
	if memory == nil || machine == nil {
		return nil, nil
	}
	p, err := readMachine(machine)
	return &restoring{machine: p, memory: memory}, errors.Join(err, machine.Close())
}

// restore makes the VM and closes the files.
func (r *restoring) restore(cfg vmm.Config) (*vmm.VM, error) {
	defer func() { _ = r.close() }() // it is mapped
	m, err := state.Decode(r.machine)
	var vm *vmm.VM
	if err == nil {
		vm, err = vmm.Restore(cfg, m, r.memory)
	}
	if err == nil {
		return vm, nil
	}
	var kvm *vmm.KVMError
	if errors.As(err, &kvm) {
		return nil, err
	}
	return nil, &workload.Error{Op: "restore the microVM", Err: fmt.Errorf("the snapshot cannot be used: %w", err),
		Remedy: "Remove it with 'duplex snapshot rm'; the next --warm run makes another."}
}
