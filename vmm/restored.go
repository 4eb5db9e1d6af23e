package vmm

// restored is called when a machine was restored, before it goes on.
func (v *VM) restored() error { return nil }
