package virtqtest

import (
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/mmio"
)

// Move saves the device and goes on with another, which gets its state, as when
// the driver's guest is restored in another process: the driver, its rings and its
// memory notice nothing. Every queue is kicked, as after a restore.
func (d *Driver) Move(to virtio.Device) *mmio.State {
	d.tb.Helper()
	s, err := d.Transport.Save()
	if err != nil {
		d.tb.Fatalf("save: %v", err)
	}
	d.tb.Cleanup(func() {
		if err := to.Close(); err != nil {
			d.tb.Errorf("close device: %v", err)
		}
	})
	next := mmio.New(to, d.Mem, d.interrupt)
	if err := next.Restore(s); err != nil {
		d.tb.Fatalf("restore: %v", err)
	}
	d.Transport = next
	for q := range next.Queues() {
		next.Kick(q)
	}
	return s
}

// interrupt is the device's edge.
func (d *Driver) interrupt() {
	select {
	case d.irq <- struct{}{}:
	default: // one is pending: an edge that nobody saw yet
	}
}
