// Package rng is a virtio entropy device (virtio 1.2 §5.4): it fills the
// buffers of its one queue from the host kernel's random number generator.
package rng

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// MaxRequest bounds what one buffer gets, in bytes; the used length says how
// much that was, and a driver that wants more asks again (§5.4.6).
const MaxRequest = 64 << 10

// ErrRequest reports a buffer that is not wholly device-writable (§5.4.6.1).
var ErrRequest = errors.New("malformed entropy request")

// Device is the entropy device; it implements virtio.Device.
type Device struct{ engine virtio.Engine }

// New makes an entropy device.
func New() *Device { return &Device{} }

// Type implements virtio.Device.
func (d *Device) Type() uint32 { return virtio.TypeEntropy }

// Features implements virtio.Device; there are none.
func (d *Device) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 { return []uint16{64} }

// ReadConfig implements virtio.Device; the configuration space is empty.
func (d *Device) ReadConfig(offset uint64, p []byte) { virtio.ReadConfigSpace(nil, offset, p) }

// WriteConfig implements virtio.Device.
func (d *Device) WriteConfig(uint64, []byte) {}

// Activate implements virtio.Device.
func (d *Device) Activate(a virtio.Activation) error {
	d.engine.Start(a)
	return nil
}

// Kick implements virtio.Device.
func (d *Device) Kick(q int) { d.engine.Serve(q, fill) }

// Reset implements virtio.Device.
func (d *Device) Reset() { d.engine.Stop() }

// Save implements virtio.Saver.
func (d *Device) Save() ([]byte, error) {
	d.engine.Drain()
	return nil, nil
}

// Restore implements virtio.Saver.
func (d *Device) Restore(own []byte, a *virtio.Activation) error {
	if len(own) != 0 {
		return virtio.ErrOwnState
	}
	if a != nil {
		d.engine.Start(*a)
	}
	return nil
}

// Close implements virtio.Device.
func (d *Device) Close() error {
	d.Reset()
	return nil
}

func fill(c *queue.Chain) (uint32, error) {
	if c.ReadLen() != 0 || c.WriteLen() == 0 {
		return 0, fmt.Errorf("%w: %d bytes readable, %d writable", ErrRequest, c.ReadLen(), c.WriteLen())
	}
	done := 0
	for _, b := range c.Writable {
		b = b[:min(len(b), MaxRequest-done)]
		// Read never fails (crypto/rand since Go 1.24) and never looks at b.
		_, _ = rand.Read(b)
		done += len(b)
	}
	return uint32(done), nil
}
