package blk

import (
	"bytes"
	"errors"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// Reads that wait for the disk are answered before the device is saved; one that
// nobody took is answered by the next device.
func TestMove(t *testing.T) {
	dev, d, s := startSlow(t, Options{})
	const n = 4
	for range n {
		add(d, typeIn, d.In(512))
	}
	go dev.Kick(0)
	for range n {
		<-s.entered
	}
	go func() { // the disk answers only once Save waits, or a little before
		for range n {
			s.release <- true
		}
	}()
	next, err := Open(Options{Path: diskOf(t, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	state := d.Move(next)
	if q := state.Queues[0]; q.NextAvail != n || q.NextUsed != n {
		t.Errorf("saved with %d taken and %d answered, of %d", q.NextAvail, q.NextUsed, n)
	}
	for range n {
		if _, written := d.Ring(0).Wait(); written != 513 {
			t.Errorf("%d bytes used", written)
		}
	}
	status := add(d, typeIn, d.In(512))
	d.Kick(0)
	d.Ring(0).Wait()
	if got := d.Bytes(status); !bytes.Equal(got, []byte{statusOK}) {
		t.Errorf("status %v after the restore", got)
	}
}

// The write cache's switch goes along.
func TestMoveWriteThrough(t *testing.T) {
	open := func() *Device {
		dev, err := Open(Options{Path: diskOf(t, 1<<20)})
		if err != nil {
			t.Fatal(err)
		}
		return dev
	}
	dev := open()
	d := v.Start(t, dev)
	d.Transport.Write(v.RegConfig+configWriteback, []byte{0})
	if !dev.writeThrough() {
		t.Fatal("the cache is on")
	}
	next := open()
	if d.Move(next); !next.writeThrough() {
		t.Error("the cache is on again")
	}
	for _, own := range [][]byte{nil, {2}, {0, 0}} {
		if err := next.Restore(own, nil); !errors.Is(err, virtio.ErrOwnState) {
			t.Errorf("%v: %v", own, err)
		}
	}
}
