package rng_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/rng"
	"github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

func TestFill(t *testing.T) {
	d := virtqtest.Start(t, rng.New())
	a, b := d.In(16), d.In(48)
	head := d.Ring(0).Add(a, b)
	d.Kick(0)
	if got, n := d.Ring(0).Wait(); got != head || n != 64 {
		t.Fatalf("used head %d with %d bytes, want %d with 64", got, n, head)
	}
	if bytes.Equal(d.Bytes(a), make([]byte, 16)) || bytes.Equal(d.Bytes(b)[:16], d.Bytes(a)) {
		t.Errorf("not random: % x % x", d.Bytes(a), d.Bytes(b))
	}
}

// A request of nearly 4 GiB, made of the same memory again and again, is
// answered with MaxRequest bytes.
func TestHugeRequest(t *testing.T) {
	d := virtqtest.Start(t, rng.New())
	big := virtqtest.Buf{Addr: 0x100000, Len: 2 << 20, Write: true}
	bufs := make([]virtqtest.Buf, 64)
	for i := range bufs {
		bufs[i] = big
	}
	d.Ring(0).Add(bufs...)
	d.Kick(0)
	if _, n := d.Ring(0).Wait(); n != rng.MaxRequest {
		t.Errorf("wrote %d bytes, want %d", n, rng.MaxRequest)
	}
}

func TestMalformed(t *testing.T) {
	d := virtqtest.Start(t, rng.New())
	d.Ring(0).Add(d.Out([]byte("to the device")), d.In(4))
	d.Kick(0)
	if broken, err := d.Broken(); !broken || !errors.Is(err, rng.ErrRequest) {
		t.Errorf("broken %v: %v", broken, err)
	}
	d.Init()
	works(t, d)
}

func works(_ testing.TB, d *virtqtest.Driver) {
	d.Ring(0).Add(d.In(8))
	d.Kick(0)
	d.Ring(0).Wait()
}

func FuzzDevice(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 16, 64, 0, 2, 0, 2, 0, 0, 3, 0})
	virtqtest.Fuzz(f, func(testing.TB) virtio.Device { return rng.New() }, works)
}
