package queue_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
	"github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

type desc = virtqtest.Desc

// ds makes a descriptor.
func ds(addr memory.GPA, n uint32, flags, next uint16) desc {
	return desc{Addr: addr, Len: n, Flags: flags, Next: next}
}

const (
	next     = virtqtest.FlagNext
	write    = virtqtest.FlagWrite
	indirect = virtqtest.FlagIndirect
)

// start returns a driver and the device's end of its one queue, of size 8.
func start(t *testing.T, refuse uint64) (*virtqtest.Driver, *queue.Queue) {
	t.Helper()
	tap := &virtqtest.Tap{}
	d := virtqtest.Attach(t, tap)
	d.Refuse = refuse
	d.Init()
	return d, tap.Act.Queues[0]
}

func TestChain(t *testing.T) {
	for _, c := range []struct {
		name string
		add  func(*virtqtest.Ring, ...virtqtest.Buf) uint16
	}{
		{"direct", (*virtqtest.Ring).Add},
		{"indirect", (*virtqtest.Ring).AddIndirect},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, q := start(t, 0)
			r := d.Ring(0)
			in1, in2 := d.In(3), d.In(5)
			head := c.add(r, d.Out([]byte("hello, ")), d.Out([]byte("world")), in1, in2)
			var chain queue.Chain
			if ok, err := q.Pop(&chain); !ok || err != nil {
				t.Fatalf("pop: %v, %v", ok, err)
			}
			if chain.Head != head || chain.ReadLen() != 12 || chain.WriteLen() != 8 {
				t.Fatalf("head %d, %d readable, %d writable", chain.Head, chain.ReadLen(), chain.WriteLen())
			}
			p := make([]byte, 16)
			if n := chain.CopyOut(p, 5); string(p[:n]) != ", world" {
				t.Errorf("copied out %q", p[:n])
			}
			if n := chain.CopyIn([]byte("0123456789"), 1); n != 7 {
				t.Errorf("copied in %d bytes", n)
			}
			if got := append(d.Bytes(in1), d.Bytes(in2)...); !bytes.Equal(got, []byte("\x000123456")) {
				t.Errorf("guest sees %q", got)
			}
			if err := q.Push(chain.Head, 8); err != nil {
				t.Fatal(err)
			}
			if h, n, ok := r.Next(); !ok || h != head || n != 8 {
				t.Errorf("used %d, %d, %v", h, n, ok)
			}
			if ok, err := q.Pop(&chain); ok || err != nil {
				t.Errorf("pop of an empty queue: %v, %v", ok, err)
			}
		})
	}
}

// Indices are free-running 16-bit numbers: they wrap, and nothing breaks.
func TestWrap(t *testing.T) {
	d, q := start(t, 0)
	r := d.Ring(0)
	buf := d.Out([]byte{1})
	for i := range 1<<16 + 100 {
		head := r.Add(buf)
		_, _, err := q.Serve(func(c *queue.Chain) (uint32, error) { return uint32(i), nil })
		if err != nil {
			t.Fatal(err)
		}
		if h, n, ok := r.Next(); !ok || h != head || n != uint32(i) {
			t.Fatalf("round %d: used %d, %d, %v", i, h, n, ok)
		}
	}
}

func TestMalformedChains(t *testing.T) {
	const table = 0x8000 // of indirect descriptors
	for _, c := range []struct {
		name     string
		descs    []desc
		indirect []desc
		head     uint16
		want     error
	}{
		{"self loop", []desc{ds(0x1000, 1, next, 0)}, nil, 0, queue.ErrTooLong},
		{"loop of two", []desc{ds(0x1000, 1, next, 1), ds(0x1000, 1, next, 0)}, nil, 0, queue.ErrTooLong},
		{"next out of the table", []desc{ds(0x1000, 1, next, 8)}, nil, 0, queue.ErrIndex},
		{"next 65535", []desc{ds(0x1000, 1, next, 65535)}, nil, 0, queue.ErrIndex},
		{"head out of the table", nil, nil, 8, queue.ErrIndex},
		{"length 0", []desc{ds(0x1000, 0, 0, 0)}, nil, 0, queue.ErrEmpty},
		{"past the end of low memory", []desc{ds(virtqtest.LowSize-1, 2, 0, 0)}, nil, 0, memory.ErrOutOfRange},
		{"into the hole", []desc{ds(memory.HoleStart, 16, 0, 0)}, nil, 0, memory.ErrOutOfRange},
		{"across the hole's end", []desc{ds(memory.HoleEnd-1, 2, write, 0)}, nil, 0, memory.ErrOutOfRange},
		{"address wraps", []desc{ds(^memory.GPA(0)-1, 16, 0, 0)}, nil, 0, memory.ErrOutOfRange},
		{"4 GiB - 1 at 0", []desc{ds(0, 1<<32-1, write, 0)}, nil, 0, memory.ErrOutOfRange},
		{"readable after writable", []desc{ds(0x1000, 1, write|next, 1), ds(0x1000, 1, 0, 0)}, nil, 0, queue.ErrOrder},
		{"indirect with next", []desc{ds(table, 16, indirect|next, 1)}, nil, 0, queue.ErrIndirect},
		{"indirect of no length", []desc{ds(table, 0, indirect, 0)}, nil, 0, queue.ErrIndirect},
		{"indirect of odd length", []desc{ds(table, 17, indirect, 0)}, nil, 0, queue.ErrIndirect},
		{"indirect of 9", []desc{ds(table, 9*16, indirect, 0)}, nil, 0, queue.ErrTooLong},
		{"indirect of 4 GiB", []desc{ds(table, 1<<32-16, indirect, 0)}, nil, 0, queue.ErrTooLong},
		{"nested indirect", []desc{ds(table, 16, indirect, 0)}, []desc{ds(table, 16, indirect, 0)}, 0, queue.ErrIndirect},
		{"indirect outside memory", []desc{ds(memory.HoleStart, 16, indirect, 0)}, nil, 0, memory.ErrOutOfRange},
		{"indirect half outside", []desc{ds(virtqtest.LowSize-16, 32, indirect, 0)}, nil, 0, queue.ErrEmpty},
		{"indirect loop", []desc{ds(table, 32, indirect, 0)}, []desc{ds(0x1000, 1, next, 1), ds(0x1000, 1, next, 0)}, 0, queue.ErrTooLong},
		{"indirect next out of it", []desc{ds(table, 16, indirect, 0)}, []desc{ds(0x1000, 1, next, 1)}, 0, queue.ErrIndex},
		{"chain, then indirect, too long together",
			[]desc{ds(0x1000, 1, next, 1), ds(table, 8*16, indirect, 0)},
			[]desc{ds(0x1000, 1, next, 1), ds(0x1000, 1, next, 2), ds(0x1000, 1, next, 3), ds(0x1000, 1, next, 4),
				ds(0x1000, 1, next, 5), ds(0x1000, 1, next, 6), ds(0x1000, 1, next, 7), ds(0x1000, 1, 0, 0)}, 0, queue.ErrTooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, q := start(t, 0)
			r := d.Ring(0)
			for i, e := range c.descs {
				r.SetDesc(uint16(i), e)
			}
			for i, e := range c.indirect {
				d.Put(table+16*memory.GPA(i), virtqtest.Encode(e))
			}
			r.Publish(c.head)
			expectBroken(t, q, c.want)
		})
	}
}

// expectBroken pops, and wants the error and that it stays.
func expectBroken(t *testing.T, q *queue.Queue, want error) {
	t.Helper()
	var chain queue.Chain
	for range 2 {
		ok, err := q.Pop(&chain)
		var typed *queue.Error
		if ok || !errors.Is(err, want) || !errors.As(err, &typed) {
			t.Fatalf("pop: %v, %v; want %v", ok, err, want)
		}
	}
	if err := q.Push(0, 0); !errors.Is(err, want) {
		t.Errorf("push to a broken queue: %v", err)
	}
	if _, err := q.Rearm(); !errors.Is(err, want) {
		t.Errorf("rearm of a broken queue: %v", err)
	}
}

func TestAvailIndexTooFarAhead(t *testing.T) {
	for _, idx := range []uint16{9, 100, 65535} {
		d, q := start(t, 0)
		d.Ring(0).SetAvail(idx)
		expectBroken(t, q, queue.ErrAvail)
	}
}

func TestIndirectNotNegotiated(t *testing.T) {
	d, q := start(t, queue.FeatureIndirect)
	d.Ring(0).AddIndirect(d.Out([]byte("x")))
	expectBroken(t, q, queue.ErrIndirect)
}

func TestChainOfFourGiB(t *testing.T) {
	const region = 1 << 30
	mem, err := memory.New(region)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	q, err := queue.New(mem, queue.Layout{Size: 8, Desc: 0, Avail: 0x100, Used: 0x200}, 8, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint16(4) {
		e := virtqtest.Encode(ds(0, region, write|next, i+1))
		if err := mem.WriteAt(e, 16*memory.GPA(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := mem.StoreUint16(0x102, 1); err != nil {
		t.Fatal(err)
	}
	expectBroken(t, q, queue.ErrBytes)
}

func TestNew(t *testing.T) {
	mem, err := memory.FromRegions(memory.Region{Bytes: make([]byte, 0x1000)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		l    queue.Layout
		want error
	}{
		{"fits", queue.Layout{Size: 8, Desc: 0, Avail: 0x80, Used: 0x100}, nil},
		{"up to the last byte", queue.Layout{Size: 8, Desc: 0, Avail: 0x1000 - 22, Used: 0x100}, nil},
		{"size 0", queue.Layout{Size: 0, Desc: 0, Avail: 0x80, Used: 0x100}, queue.ErrSize},
		{"size 6", queue.Layout{Size: 6, Desc: 0, Avail: 0x80, Used: 0x100}, queue.ErrSize},
		{"above the maximum", queue.Layout{Size: 32, Desc: 0, Avail: 0x400, Used: 0x800}, queue.ErrSize},
		{"size 2^31", queue.Layout{Size: 1 << 31, Desc: 0, Avail: 0x400, Used: 0x800}, queue.ErrSize},
		{"size 2^16+8", queue.Layout{Size: 1<<16 + 8, Desc: 0, Avail: 0x400, Used: 0x800}, queue.ErrSize},
		{"table misaligned", queue.Layout{Size: 8, Desc: 8, Avail: 0x100, Used: 0x200}, queue.ErrAlign},
		{"avail misaligned", queue.Layout{Size: 8, Desc: 0, Avail: 0x81, Used: 0x200}, queue.ErrAlign},
		{"used misaligned", queue.Layout{Size: 8, Desc: 0, Avail: 0x80, Used: 0x102}, queue.ErrAlign},
		{"table outside", queue.Layout{Size: 8, Desc: 0xff0, Avail: 0x80, Used: 0x100}, memory.ErrOutOfRange},
		{"avail outside", queue.Layout{Size: 8, Desc: 0, Avail: 0x1000 - 20, Used: 0x100}, memory.ErrOutOfRange},
		{"used outside", queue.Layout{Size: 8, Desc: 0, Avail: 0x80, Used: 0xff0}, memory.ErrOutOfRange},
		{"used wraps", queue.Layout{Size: 8, Desc: 0, Avail: 0x80, Used: ^memory.GPA(3)}, memory.ErrOutOfRange},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := queue.New(mem, c.l, 16, 0)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// FuzzPop lays the bytes out as descriptors of an 8-entry queue and an indirect
// table behind it; whatever they say, a chain lies in guest memory.
func FuzzPop(f *testing.F) {
	f.Add(virtqtest.Encode(ds(0x800, 16, next, 1)), uint16(0), true)
	f.Add(virtqtest.Encode(ds(0x80, 32, indirect, 0)), uint16(0), true)
	f.Fuzz(func(t *testing.T, descs []byte, head uint16, allowIndirect bool) {
		raw := make([]byte, 0x1000)
		copy(raw[:0x400], descs)
		mem, err := memory.FromRegions(memory.Region{Bytes: raw})
		if err != nil {
			t.Fatal(err)
		}
		var features uint64
		if allowIndirect {
			features = queue.FeatureIndirect
		}
		q, err := queue.New(mem, queue.Layout{Size: 8, Avail: 0x400, Used: 0x500}, 8, features)
		if err != nil {
			t.Fatal(err)
		}
		raw[0x402], raw[0x404], raw[0x405] = 1, byte(head), byte(head>>8)
		var c queue.Chain
		ok, err := q.Pop(&c)
		if ok == (err != nil) {
			t.Fatalf("pop: %v, %v", ok, err)
		}
		if n := len(c.Readable) + len(c.Writable); n > 8 {
			t.Errorf("chain of %d", n)
		}
		total := 0
		for _, b := range append(append([][]byte{}, c.Readable...), c.Writable...) {
			total += len(b)
			if len(b) == 0 || len(b) > len(raw) {
				t.Errorf("buffer of %d bytes", len(b))
			}
		}
		if ok && total != c.ReadLen()+c.WriteLen() {
			t.Errorf("lengths %d + %d, buffers hold %d", c.ReadLen(), c.WriteLen(), total)
		}
	})
}
