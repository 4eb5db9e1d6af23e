package rng_test

import (
	"errors"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/rng"
	"github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// Requests from before the save, of which nobody told the device, and from after
// it are answered by the next device.
func TestMove(t *testing.T) {
	d := virtqtest.Start(t, rng.New())
	for range 70 { // the indices go round
		d.Ring(0).Add(d.In(8))
		d.Kick(0)
		d.Ring(0).Wait()
	}
	late := d.Ring(0).Add(d.In(16))
	d.Move(rng.New())
	if head, n := d.Ring(0).Wait(); head != late || n != 16 {
		t.Errorf("head %d with %d bytes, want %d with 16", head, n, late)
	}
	d.Ring(0).Add(d.In(8))
	d.Kick(0)
	if _, n := d.Ring(0).Wait(); n != 8 {
		t.Errorf("%d bytes after the restore", n)
	}
	// A driver that was not up comes up with the next device.
	d = virtqtest.Attach(t, rng.New())
	d.SetReg(virtqtest.RegStatus, virtqtest.Acknowledge)
	d.Move(rng.New())
	if s := d.Reg(virtqtest.RegStatus); s != virtqtest.Acknowledge {
		t.Errorf("status %#x", s)
	}
	d.Init()
	if err := rng.New().Restore([]byte{1}, nil); !errors.Is(err, virtio.ErrOwnState) {
		t.Errorf("a state it does not have: %v", err)
	}
}
