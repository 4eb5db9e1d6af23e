package blk

import "github.com/duplex-run/duplex/vmm/virtio"

// Save implements virtio.Saver. What was written is in the file, but flushed only
// as far as the guest asked for it. Its own state is the write cache's switch.
func (d *Device) Save() ([]byte, error) {
	d.engine.Drain()
	for _, l := range d.lanes {
		l.retry.Stop()
	}
	if d.wce.Load() {
		return []byte{1}, nil
	}
	return []byte{0}, nil
}

// Restore implements virtio.Saver. The disk must be what it was.
func (d *Device) Restore(own []byte, a *virtio.Activation) error {
	if len(own) != 1 || own[0] > 1 {
		return virtio.ErrOwnState
	}
	if a != nil {
		if err := d.Activate(*a); err != nil {
			return err
		}
	}
	d.wce.Store(own[0] == 1)
	return nil
}
