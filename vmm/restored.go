package vmm

import (
	"crypto/rand"
	"fmt"

	"github.com/duplex-run/duplex/vmm/acpi"
)

// newGeneration gives the machine a generation id of its own: no other machine has
// or had it.
func (v *VM) newGeneration() error {
	var id [acpi.GenerationIDSize]byte
	_, _ = rand.Read(id[:]) // never fails
	if err := v.mem.WriteAt(id[:], acpi.GenerationID); err != nil {
		return fmt.Errorf("write the generation id: %w", err)
	}
	return nil
}

// restored tells the guest that it goes on as another machine than was saved: by a
// new generation id, from which its kernel, if it has the driver, makes its random
// numbers anew. The machine's state is in place and no vCPU runs yet.
func (v *VM) restored() error {
	if err := v.newGeneration(); err != nil {
		return err
	}
	return v.vm.Line(gsiGeneration).Pulse()
}
