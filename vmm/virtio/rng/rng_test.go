package rng_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
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

// A request of three gigabytes is answered with MaxRequest bytes, and touches no
// more memory than that.
func TestGigabytes(t *testing.T) {
	const gib = 1 << 30
	mem, err := memory.New(gib)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	q, err := queue.New(mem, queue.Layout{Size: 8, Desc: 0, Avail: 0x100, Used: 0x200}, 8, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		e := virtqtest.Desc{Addr: 0x10000, Len: gib - 0x10000, Flags: virtqtest.FlagWrite, Next: uint16(i + 1)}
		if i < 2 {
			e.Flags |= virtqtest.FlagNext
		}
		if err := mem.WriteAt(virtqtest.Encode(e), 16*memory.GPA(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := mem.StoreUint16(0x102, 1); err != nil {
		t.Fatal(err)
	}
	d := rng.New()
	if err := d.Activate(virtio.Activation{Queues: []*queue.Queue{q}, Transport: noTransport{t}}); err != nil {
		t.Fatal(err)
	}
	d.Kick(0)
	used, err := mem.Uint32(0x208)
	if err != nil || used != rng.MaxRequest {
		t.Errorf("wrote %d bytes, want %d: %v", used, rng.MaxRequest, err)
	}
	if n, err := mem.Resident(); err != nil || n > 4<<20 { // a huge page, at most two
		t.Errorf("%d bytes of guest memory were touched, %v", n, err)
	}
}

// noTransport fails the test when the driver is said to have broken the rules.
type noTransport struct{ tb testing.TB }

func (noTransport) Interrupt()         {}
func (noTransport) ConfigChanged()     {}
func (n noTransport) Broken(err error) { n.tb.Error(err) }

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
