package vsock_test

import (
	"errors"
	"syscall"
	"testing"

	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

// All streams end, the guest is told once, and new ones work.
func TestTransportReset(t *testing.T) {
	g := boot(t)
	l := g.listen(5)
	s, c := g.connect(l, 1)
	events := g.d.Ring(2)
	g.dev.TransportReset() // the guest gave no buffer for events yet
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	buf := g.d.In(8)
	g.d.Put(buf.Addr, []byte{9, 9, 9, 9, 9, 9, 9, 9})
	events.Add(buf)
	g.d.Kick(2)
	if _, n := events.Wait(); n != 4 || string(g.d.Bytes(buf)) != "\x00\x00\x00\x00\t\t\t\t" {
		t.Errorf("event of %d bytes: % x", n, g.d.Bytes(buf))
	}
	events.Add(buf)
	g.d.Kick(2)
	if _, _, ok := events.Next(); ok {
		t.Error("the guest was told twice")
	}
	s.write([]byte("on a stream that is gone"))
	g.expect(opRst)
	g.connect(l, 1)
	g.dev.TransportReset()
	events.Wait()
}

func TestTransportResetMalformed(t *testing.T) {
	g := boot(t)
	g.d.Ring(2).Add(g.d.In(3))
	g.d.Kick(2)
	g.dev.TransportReset()
	if broken, err := g.d.Broken(); !broken || !errors.Is(err, vsock.ErrPacket) {
		t.Errorf("broken %v, %v", broken, err)
	}
	g.d.SetReg(v.RegStatus, 0)
	g.dev.TransportReset() // nobody to tell
}
