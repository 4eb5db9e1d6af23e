package vmm

import (
	"context"
	"errors"
)

// ErrNotRunning reports that the VM has not been started or has ended.
var ErrNotRunning = errors.New("the VM is not running")

// Pause stops the vCPUs and returns once none of them is in the guest. Devices
// go on with the requests they have. The guest's clock goes on too: the time it
// was paused for, it sees pass at once. Each Pause needs a Resume; a paused VM
// can be cancelled. On error (ctx ended first: a vCPU may be waiting for the
// console's writer) the VM is as it was.
func (v *VM) Pause(ctx context.Context) error {
	if err := v.BeginPause(); err != nil {
		return err
	}
	if err := v.gate.still(ctx); err != nil {
		v.gate.release()
		return err
	}
	return nil
}

// BeginPause is Pause, but does not wait: the vCPUs stop as soon as they come out
// of the guest. Called by OnMark, it stops the guest right behind the instruction
// that wrote the mark.
func (v *VM) BeginPause() error {
	if !v.ran.Load() || v.stop.Load() {
		return ErrNotRunning
	}
	v.gate.hold()
	v.kick()
	return nil
}

// Resume undoes one Pause. Precondition: there was one.
func (v *VM) Resume() { v.gate.release() }

// Input gives the guest's serial port input, as fast as the guest takes it; see
// serial.Port. Close ends it.
func (v *VM) Input(p []byte) (int, error) { return v.serial.Input(p) }

// PowerButton presses the power button of the machine (ACPI 6.5 section 5.6.9,
// a generic event device): the guest is asked to shut down. A guest that has no
// driver for buttons, or nobody who listens to it, does nothing.
func (v *VM) PowerButton() error {
	if v.stop.Load() {
		return ErrNotRunning
	}
	return v.power.Pulse()
}

// kick makes every vCPU come to the gate.
func (v *VM) kick() {
	for _, c := range v.cpus {
		c.kvm.Kick()
	}
}
