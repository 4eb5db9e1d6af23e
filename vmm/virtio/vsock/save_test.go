package vsock_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

// Streams end with the save, the guest is told of it by the next device, and opens
// others there.
func TestMove(t *testing.T) {
	g := boot(t)
	l := g.listen(5)
	_, c := g.connect(l, 1)
	next := newDevice(t)
	g.d.Move(next)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	buf := g.d.In(8)
	g.d.Put(buf.Addr, []byte{9, 9, 9, 9, 9, 9, 9, 9})
	g.d.Ring(2).Add(buf)
	g.d.Kick(2)
	if _, n := g.d.Ring(2).Wait(); n != 4 || g.d.Bytes(buf)[0] != 0 {
		t.Errorf("event of %d bytes: % x", n, g.d.Bytes(buf))
	}
	g.dev = next
	s, c := g.connect(g.listen(5), 2)
	s.write([]byte("again"))
	got := make([]byte, 5)
	if n, err := c.Read(got); err != nil || string(got[:n]) != "again" {
		t.Errorf("read %q, %v", got[:n], err)
	}
}

// Without streams there is nothing to tell: the event could end streams that the
// guest has opened meanwhile.
func TestMoveWithoutStreams(t *testing.T) {
	g := boot(t)
	g.d.Ring(2).Add(g.d.In(8))
	g.d.Kick(2)
	g.d.Move(newDevice(t))
	g.d.Kick(2)
	if _, _, ok := g.d.Ring(2).Next(); ok {
		t.Error("the guest was told of the end of streams that it did not have")
	}
	for _, own := range [][]byte{nil, {2}, {0, 0}} {
		if err := newDevice(t).Restore(own, nil); !errors.Is(err, virtio.ErrOwnState) {
			t.Errorf("%v: %v", own, err)
		}
	}
}

func newDevice(t *testing.T) *vsock.Device {
	t.Helper()
	dev, err := vsock.New(guestCID)
	if err != nil {
		t.Fatal(err)
	}
	return dev
}
