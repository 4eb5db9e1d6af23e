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
	streams := len(d.conns) > 0 || d.resetDue
	d.stop(syscall.ECONNRESET)
	if streams {
		return []byte{hadStreams}, nil
	}
	return []byte{hadNone}, nil
}

// The state: whether there were streams. The guest may get to know of their end
// only after it has opened others, and would end those too: without any, it is not
// told.
const (
	hadNone    = 0
	hadStreams = 1
)

// Restore implements virtio.Saver. If there were streams, the guest is told by an event that its streams
// are gone (§5.10.6.7); its listeners stay.
func (d *Device) Restore(own []byte, a *virtio.Activation) error {
	if len(own) != 1 || own[0] > hadStreams {
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
	d.resetDue = own[0] == hadStreams
	d.check(d.sendEvent())
	return nil
}
