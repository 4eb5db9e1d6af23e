package blk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/blk"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
	"github.com/duplex-run/duplex/vmm/virtio/rate"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

const sectors = 64

// disk writes a disk of random sectors and opens it.
func disk(tb testing.TB) (*blk.Device, []byte) {
	tb.Helper()
	path, data := diskFile(tb)
	return open(tb, path), data
}

func diskFile(tb testing.TB) (string, []byte) {
	tb.Helper()
	data := make([]byte, sectors*blk.SectorSize)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	path := filepath.Join(tb.TempDir(), "disk")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path, data
}

func open(tb testing.TB, path string) *blk.Device {
	tb.Helper()
	return openWith(tb, blk.Options{Path: path, ReadOnly: true})
}

func openWith(tb testing.TB, o blk.Options) *blk.Device {
	tb.Helper()
	o.ID = "serial number of the disk, too long"
	dev, err := blk.Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	return dev
}

func request(kind uint32, sector uint64) []byte {
	p := binary.LittleEndian.AppendUint32(nil, kind)
	p = binary.LittleEndian.AppendUint32(p, 0)
	return binary.LittleEndian.AppendUint64(p, sector)
}

// The configuration space field by field (§5.2.4), and what is offered.
func TestConfig(t *testing.T) {
	path, _ := diskFile(t)
	const common = 1<<2 | 1<<6 | 1<<12 // SEG_MAX, BLK_SIZE, MQ
	for name, c := range map[string]struct {
		o        blk.Options
		features uint64
	}{
		"read-only":  {blk.Options{ReadOnly: true, Queues: 3}, common | 1<<5},
		"read-write": {blk.Options{Queues: 3}, common | 1<<9 | 1<<11 | 1<<13 | 1<<14},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Path = path
			dev := openWith(t, c.o)
			d := v.Attach(t, dev)
			if got := dev.Features(); got != c.features || dev.Type() != virtio.TypeBlock {
				t.Errorf("features %#x, want %#x", got, c.features)
			}
			for off, want := range map[uint64]uint32{
				0: sectors, 4: 0, // capacity
				8: 0, 12: 254, // size_max (not offered), seg_max
				20: 512,                    // blk_size
				32: 3<<16 | 1,              // writeback, num_queues
				36: 1 << 21, 40: 16, 44: 1, // discard: sectors, segments, alignment
				48: 64 << 11, 52: 1, 56: 1, // write zeroes: sectors, segments, may unmap
			} {
				if got := d.Reg(v.RegConfig + off); got != want {
					t.Errorf("field at %d is %d, want %d", off, got, want)
				}
			}
			if err := dev.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRequests(t *testing.T) {
	path, data := diskFile(t)
	cached := v.Start(t, open(t, path))
	sector := func(i, n int) []byte { return data[i*512 : (i+n)*512] }
	direct := v.Start(t, openWith(t, blk.Options{Path: path, ReadOnly: true, Direct: true}))
	for _, c := range []struct {
		name   string
		kind   uint32
		sector uint64
		out    int   // bytes of payload to the device
		in     []int // sizes of the buffers from it, the status byte apart
		status byte
		want   []byte
	}{
		{name: "one sector", in: []int{512}, want: sector(0, 1)},
		{name: "several buffers", sector: 3, in: []int{512, 1024, 100, 412}, want: sector(3, 4)},
		{name: "all of it", in: []int{sectors * 512}, want: data},
		{name: "the last sector", sector: sectors - 1, in: []int{512}, want: sector(sectors-1, 1)},
		{name: "nothing", sector: sectors, in: nil, want: nil},
		{name: "past the end", sector: sectors - 1, in: []int{1024}, status: 1},
		{name: "far past the end", sector: 1 << 63, in: []int{512}, status: 1},
		{name: "sector times 512 wraps", sector: 1 << 55, in: []int{512}, status: 1},
		{name: "half a sector", in: []int{256}, status: 1},
		{name: "write", kind: 1, out: 512, status: 1},
		{name: "flush", kind: 4},
		{name: "id", kind: 8, in: []int{20}, want: []byte("serial number of the")},
		{name: "id in a long buffer", kind: 8, in: []int{64}, want: append([]byte("serial number of the"), make([]byte, 44)...)},
		{name: "id in a short buffer", kind: 8, in: []int{19}, status: 1},
		{name: "discard", kind: 11, out: 16, status: 1},
		{name: "write zeroes", kind: 13, out: 16, status: 1},
		{name: "secure erase", kind: 14, out: 16, status: 2},
		{name: "unknown", kind: 0xffffffff, status: 2},
	} {
		for name, d := range map[string]*v.Driver{"cached": cached, "direct": direct} {
			t.Run(c.name+", "+name, func(t *testing.T) {
				bufs := []v.Buf{}
				if c.out > 0 {
					bufs = append(bufs, v.Buf{Len: uint32(c.out)})
				}
				for _, n := range c.in {
					bufs = append(bufs, v.Buf{Len: uint32(n), Write: true})
				}
				status, written, have := ask(d, request(c.kind, c.sector), bufs)
				switch {
				case status != c.status:
					t.Errorf("status %d, want %d", status, c.status)
				case status != 0 && written != 0:
					t.Errorf("failed, but %d bytes used", written)
				case status == 0 && !bytes.Equal(have, c.want):
					t.Errorf("wrong data: %.40q, want %.40q", have, c.want)
				}
			})
		}
	}
}

// ask makes a request in an indirect table, with buffers of the lengths given,
// and returns its status, the used length and what the device wrote.
func ask(d *v.Driver, header []byte, bufs []v.Buf) (status byte, written uint32, data []byte) {
	d.Init()
	for i, b := range bufs {
		bufs[i].Addr = d.Alloc(uint64(b.Len))
		d.Put(bufs[i].Addr, make([]byte, b.Len))
	}
	end := d.In(1)
	d.Put(end.Addr, []byte{0xee})
	d.Ring(0).AddIndirect(slices.Concat([]v.Buf{d.Out(header)}, bufs, []v.Buf{end})...)
	d.Kick(0)
	_, written = d.Ring(0).Wait()
	for _, b := range bufs {
		if b.Write {
			data = append(data, d.Bytes(b)...)
		}
	}
	return d.Bytes(end)[0], written, data
}

// The header and the status need not have descriptors of their own (§2.7.4).
func TestFraming(t *testing.T) {
	dev, data := disk(t)
	d := v.Start(t, dev)
	h := request(0, 5)
	in := d.In(513)
	d.Ring(0).Add(d.Out(h[:3]), d.Out(h[3:11]), d.Out(h[11:]), in)
	d.Kick(0)
	if _, n := d.Ring(0).Wait(); n != 513 {
		t.Fatalf("%d bytes used", n)
	}
	if got := d.Bytes(in); !bytes.Equal(got, append(bytes.Clone(data[5*512:6*512]), 0)) {
		t.Error("wrong data or status")
	}
}

func TestMalformed(t *testing.T) {
	dev, data := disk(t)
	d := v.Start(t, dev)
	for _, c := range []struct {
		name string
		add  func()
		want error
	}{
		{"short header", func() { d.Ring(0).Add(d.Out(request(0, 0)[:15]), d.In(513)) }, blk.ErrRequest},
		{"no status", func() { d.Ring(0).Add(d.Out(request(0, 0))) }, blk.ErrRequest},
		{"no header", func() { d.Ring(0).Add(d.In(513)) }, blk.ErrRequest},
		{"buffer outside memory", func() {
			d.Ring(0).Add(d.Out(request(0, 0)), v.Buf{Addr: 3 << 30, Len: 512, Write: true}, d.In(1))
		}, nil},
		{"loop", func() {
			d.Ring(0).SetDesc(0, v.Desc{Addr: 0x1000, Len: 16, Flags: v.FlagNext, Next: 0})
			d.Ring(0).Publish(0)
		}, queue.ErrTooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			d.Init()
			c.add()
			d.Kick(0)
			if broken, err := d.Broken(); !broken || !errors.Is(err, c.want) && c.want != nil {
				t.Fatalf("broken %v: %v, want %v", broken, err, c.want)
			}
			d.Init()
			readFirst(t, d, data)
		})
	}
}

func readFirst(tb testing.TB, d *v.Driver, data []byte) {
	tb.Helper()
	in := d.In(512)
	d.Ring(0).Add(d.Out(request(0, 0)), in, d.In(1))
	d.Kick(0)
	d.Ring(0).Wait()
	if !bytes.Equal(d.Bytes(in), data[:512]) {
		tb.Error("wrong data")
	}
}

// A disk that shrank under the guest gives IOERR, not a hang.
func TestShrunkDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	dev, err := blk.Open(blk.Options{Path: path, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	d := v.Start(t, dev)
	if err := os.Truncate(path, 1024); err != nil {
		t.Fatal(err)
	}
	status := d.In(1)
	d.Ring(0).Add(d.Out(request(0, 1)), d.In(1024), status)
	d.Kick(0)
	d.Ring(0).Wait()
	if s := d.Bytes(status)[0]; s != 1 {
		t.Errorf("status %d, want IOERR", s)
	}
}

// Queues are served by several goroutines at the same time, also with the
// bounce buffers of O_DIRECT.
func TestQueues(t *testing.T) {
	for _, direct := range []bool{false, true} {
		path, data := diskFile(t)
		d := v.Start(t, openWith(t, blk.Options{Path: path, Queues: 4, Direct: direct}))
		var p [2]byte
		if d.Transport.Read(v.RegConfig+34, p[:]); p != [2]byte{4, 0} || d.Transport.Queues() != 4 {
			t.Errorf("num_queues %v, %d queues", p, d.Transport.Queues())
		}
		var wg sync.WaitGroup
		bufs := make([][]v.Buf, 4)
		for q := range 4 {
			h := d.Out(request(0, uint64(q*16)))
			for range 50 {
				in := d.In(16 * 512)
				bufs[q] = append(bufs[q], in)
				d.Ring(q).Add(h, in, d.In(1))
			}
			wg.Go(func() { d.Transport.Kick(q) })
		}
		wg.Wait()
		for q := range bufs {
			for range 50 {
				d.Ring(q).Wait()
			}
			for i, b := range bufs[q] {
				if !bytes.Equal(d.Bytes(b), data[q*16*512:(q+1)*16*512]) {
					t.Fatalf("direct %v, queue %d, request %d: wrong data", direct, q, i)
				}
			}
		}
	}
}

// Reset while other goroutines kick: afterwards the device leaves the rings
// alone, and works again.
func TestResetWhileBusy(t *testing.T) {
	for name, o := range map[string]blk.Options{
		"read-only": {ReadOnly: true}, "queues": {Queues: 4}, "direct": {Direct: true, Queues: 2},
		"limited": {Limit: rate.Limit{Ops: 1000, BurstOps: 20}, Queues: 2},
	} {
		t.Run(name, func(t *testing.T) {
			var data []byte
			o.Path, data = diskFile(t)
			d := v.Start(t, openWith(t, o))
			for range 20 {
				resetWhileBusy(t, d)
			}
			readFirst(t, d, data)
		})
	}
}

func resetWhileBusy(t *testing.T, d *v.Driver) {
	t.Helper()
	var wg sync.WaitGroup
	var rings []*v.Ring
	for q := range d.Transport.Queues() {
		h := d.Out(request(0, 0))
		r := d.Ring(q)
		rings = append(rings, r)
		for range 40 {
			r.Add(h, v.Buf{Addr: 0x300000, Len: sectors * 512, Write: true}, d.In(1))
		}
		for range 2 {
			wg.Go(func() { d.Transport.Kick(q) })
		}
	}
	d.SetReg(v.RegStatus, 0)
	at := make([]uint16, len(rings))
	for q, r := range rings {
		at[q] = r.UsedIndex()
	}
	wg.Wait()
	for q, r := range rings {
		if now := r.UsedIndex(); now != at[q] {
			t.Fatalf("queue %d: the used index went from %d to %d after reset", q, at[q], now)
		}
	}
	d.Init()
}
