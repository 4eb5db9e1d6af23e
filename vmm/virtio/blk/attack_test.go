package blk_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/blk"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// Each attack is made on a read-write disk. The device asks for a reset with the
// reason expected, or answers with IOERR where want is nil; the disk is as it
// was, and works after a reset.
func TestAttacks(t *testing.T) {
	const n, w, i = v.FlagNext, v.FlagWrite, v.FlagIndirect
	const table = memory.GPA(0x8000)
	write := func(bufs ...v.Buf) func(*v.Driver) {
		return func(d *v.Driver) {
			d.Ring(0).Add(append(append([]v.Buf{d.Out(request(1, 0))}, bufs...), d.In(1))...)
		}
	}
	raw := func(descs ...v.Desc) func(*v.Driver) {
		return func(d *v.Driver) {
			for i, e := range descs {
				d.Ring(0).SetDesc(uint16(i), e)
			}
			d.Ring(0).Publish(0)
		}
	}
	indirect := func(n uint32, descs ...v.Desc) func(*v.Driver) {
		return func(d *v.Driver) {
			for i, e := range descs {
				d.Put(table+16*memory.GPA(i), v.Encode(e))
			}
			raw(v.Desc{Addr: table, Len: n, Flags: i})(d)
		}
	}
	for _, c := range []struct {
		name   string
		attack func(*v.Driver)
		want   error
	}{
		{"descriptor loop", raw(v.Desc{Addr: 0x1000, Len: 512, Flags: n, Next: 1}, v.Desc{Addr: 0x1000, Len: 512, Flags: n, Next: 0}), queue.ErrTooLong},
		{"writable descriptor loop", raw(v.Desc{Addr: 0x1000, Len: 512, Flags: n | w, Next: 0}), queue.ErrTooLong},
		{"nested indirect table", indirect(16, v.Desc{Addr: table, Len: 16, Flags: i}), queue.ErrIndirect},
		{"indirect table longer than the queue", indirect(257 * 16), queue.ErrTooLong},
		{"indirect table of 17 bytes", indirect(17), queue.ErrIndirect},
		{"indirect table of no bytes", indirect(0), queue.ErrIndirect},
		{"indirect table across the end of memory", func(d *v.Driver) {
			d.Put(v.LowSize-16, v.Encode(v.Desc{Addr: 0x1000, Len: 16, Flags: n, Next: 1}))
			raw(v.Desc{Addr: v.LowSize - 16, Len: 32, Flags: i})(d)
		}, memory.ErrOutOfRange},
		{"data across the end of memory", write(v.Buf{Addr: v.LowSize - 256, Len: 512}), memory.ErrOutOfRange},
		{"data across the MMIO hole", write(v.Buf{Addr: memory.HoleEnd - 256, Len: 512}), memory.ErrOutOfRange},
		{"data at the device's own registers", write(v.Buf{Addr: 0xd0000000, Len: 512}), memory.ErrOutOfRange},
		{"address and length wrap", write(v.Buf{Addr: ^memory.GPA(0) - 255, Len: 512}), memory.ErrOutOfRange},
		{"length of 4 GiB - 512", write(v.Buf{Addr: 0, Len: 1<<32 - 512}), memory.ErrOutOfRange},
		{"status outside memory", func(d *v.Driver) {
			d.Ring(0).Add(d.Out(request(1, 0)), d.Out(make([]byte, 512)), v.Buf{Addr: memory.HoleStart, Len: 1, Write: true})
		}, memory.ErrOutOfRange},
		{"no status", func(d *v.Driver) { d.Ring(0).Add(d.Out(request(1, 0)), d.Out(make([]byte, 512))) }, blk.ErrRequest},
		{"data before the header", func(d *v.Driver) { d.Ring(0).Add(d.In(512), d.Out(request(1, 0)), d.In(1)) }, queue.ErrOrder},
		{"the avail index runs ahead", func(d *v.Driver) { d.Ring(0).SetAvail(257) }, queue.ErrAvail},
		{"head outside the table", func(d *v.Driver) { d.Ring(0).Publish(256) }, queue.ErrIndex},
		{"more data than a request may have", write(many(33, v.Buf{Addr: 0x200000, Len: 2 << 20})...), nil},
		{"data past the end of the disk", write(v.Buf{Addr: 0x200000, Len: (sectors + 1) * 512}), nil},
		{"data of 511 bytes", write(v.Buf{Addr: 0x200000, Len: 511}), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, path, before := writable(t, blk.Options{})
			c.attack(d)
			d.Kick(0)
			broken, err := d.Broken()
			if broken != (c.want != nil) || !errors.Is(err, c.want) {
				t.Errorf("broken %v: %v; want %v", broken, err, c.want)
			}
			if n := d.Ring(0).UsedIndex(); (n == 1) != (c.want == nil) {
				t.Errorf("%d requests answered", n)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
				t.Errorf("the disk was written to: %v", err)
			}
			d.Init()
			readFirst(t, d, before)
		})
	}
}

func many(n int, b v.Buf) []v.Buf {
	bufs := make([]v.Buf, n)
	for i := range bufs {
		bufs[i] = b
	}
	return bufs
}

// An indirect table at an odd address is unusual, not forbidden (§2.7.5.3): its
// entries are read as they are.
func TestUnalignedIndirectTable(t *testing.T) {
	dev, data := disk(t)
	d := v.Start(t, dev)
	in := d.In(513)
	d.Put(0x8001, v.Encode(v.Desc{Addr: d.Out(request(0, 0)).Addr, Len: 16, Flags: v.FlagNext, Next: 1}))
	d.Put(0x8011, v.Encode(v.Desc{Addr: in.Addr, Len: 513, Flags: v.FlagWrite}))
	d.Ring(0).SetDesc(0, v.Desc{Addr: 0x8001, Len: 32, Flags: v.FlagIndirect})
	d.Ring(0).Publish(0)
	d.Kick(0)
	if !bytes.Equal(d.Bytes(in)[:512], data[:512]) {
		t.Error("wrong data")
	}
}

// A data buffer over the rings: the guest harms itself, and only itself.
func TestReadIntoTheRings(t *testing.T) {
	dev, data := disk(t)
	d := v.Start(t, dev)
	r := d.Ring(0)
	r.Add(d.Out(request(0, 0)), v.Buf{Addr: r.Desc, Len: 16 * 512, Write: true}, d.In(1))
	r.Add(d.Out(request(0, 0)), v.Buf{Addr: r.Used &^ 511, Len: 512, Write: true}, d.In(1))
	d.Kick(0)
	d.Init()
	readFirst(t, d, data)
}

// Notifications with nothing behind them cost no memory and no interrupts.
func TestNotifyStorm(t *testing.T) {
	dev, data := disk(t)
	d := v.Start(t, dev)
	notify := []byte{0, 0, 0, 0}
	if n := testing.AllocsPerRun(10000, func() { d.Transport.Write(v.RegQueueNotify, notify) }); n != 0 {
		t.Errorf("%v allocations a notification", n)
	}
	select {
	case <-d.Interrupts():
		t.Error("interrupt for nothing")
	default:
	}
	readFirst(t, d, data)
}

// Reads and writes of the configuration space anywhere: zeroes past its end,
// and only the writeback field takes a value.
func TestConfigPastTheEnd(t *testing.T) {
	d, _, _ := writable(t, blk.Options{})
	before := make([]byte, 60)
	d.Transport.Read(v.RegConfig, before)
	for _, off := range []uint64{57, 60, 61, 255, 0xe00, 1 << 40, ^uint64(0) - v.RegConfig - 8} {
		p := bytes.Repeat([]byte{0xee}, 8)
		d.Transport.Read(v.RegConfig+off, p)
		if !bytes.Equal(p, make([]byte, 8)) {
			t.Errorf("offset %#x reads % x", off, p)
		}
	}
	for off := range uint64(80) {
		for _, n := range []int{1, 2, 4, 8} {
			if off != 32 || n != 1 {
				d.Transport.Write(v.RegConfig+off, make([]byte, n))
			}
		}
	}
	after := make([]byte, 60)
	if d.Transport.Read(v.RegConfig, after); !bytes.Equal(before, after) {
		t.Errorf("the configuration changed: % x to % x", before, after)
	}
}

// TestRingAttacks are those that every device has to stand.
func TestRingAttacks(t *testing.T) {
	path, data := diskFile(t)
	v.Attacks(t, func(tb testing.TB) virtio.Device { return open(tb, path) }, []int{0},
		func(tb testing.TB, d *v.Driver) { readFirst(tb, d, data) })
}
