package virtqtest

import (
	"github.com/duplex-run/duplex/vmm/virtio"
)

// Tap is a device that only keeps its Activation, for tests of queues and of
// the transport.
type Tap struct {
	Sizes  []uint16 // QueueSizes; nil means one queue of 8
	Fail   error    // what Activate returns
	Act    *virtio.Activation
	Kicks  []int
	Resets int
	Space  []byte // configuration space, writable
}

// Type implements virtio.Device.
func (*Tap) Type() uint32 { return 42 }

// Features implements virtio.Device.
func (*Tap) Features() uint64 { return 1<<3 | 1<<33 }

// QueueSizes implements virtio.Device.
func (t *Tap) QueueSizes() []uint16 {
	if t.Sizes == nil {
		return []uint16{8}
	}
	return t.Sizes
}

// ReadConfig implements virtio.Device.
func (t *Tap) ReadConfig(offset uint64, p []byte) { virtio.ReadConfigSpace(t.Space, offset, p) }

// WriteConfig implements virtio.Device.
func (t *Tap) WriteConfig(offset uint64, p []byte) {
	if offset < uint64(len(t.Space)) {
		copy(t.Space[offset:], p)
	}
}

// Activate implements virtio.Device.
func (t *Tap) Activate(a virtio.Activation) error {
	if t.Fail == nil {
		t.Act = &a
	}
	return t.Fail
}

// Kick implements virtio.Device.
func (t *Tap) Kick(queue int) { t.Kicks = append(t.Kicks, queue) }

// Reset implements virtio.Device.
func (t *Tap) Reset() { t.Act, t.Resets = nil, t.Resets+1 }

// Close implements virtio.Device.
func (t *Tap) Close() error { return nil }
