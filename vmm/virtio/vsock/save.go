package vsock

import (
	"syscall"

	"github.com/duplex-run/duplex/vmm/virtio"
)

// Save implements virtio.Saver: all streams are reset, as they lead to what is not
// saved.
func (d *Device) Save() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop(syscall.ECONNRESET)
	return nil, nil
}

// Restore implements virtio.Saver. The guest is told by an event that its streams
// are gone (§5.10.6.7); its listeners stay.
func (d *Device) Restore(own []byte, a *virtio.Activation) error {
	if len(own) != 0 {
		return virtio.ErrOwnState
	}
	if a == nil {
		return nil
	}
	if err := d.Activate(*a); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resetDue = true
	d.check(d.sendEvent())
	return nil
}
