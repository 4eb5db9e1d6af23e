package balloon_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/balloon"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

const (
	inflateQ, deflateQ, statsQ, reportQ = 0, 1, 2, 4

	page = balloon.PageSize
	// free is a page number in the driver's memory that it does not use itself.
	free = 512
)

func pfns(pages ...uint32) []byte {
	var p []byte
	for _, n := range pages {
		p = binary.LittleEndian.AppendUint32(p, n)
	}
	return p
}

// dirty fills n pages from page first on.
func dirty(d *v.Driver, first, n int) {
	d.Put(memory.GPA(first*page), bytes.Repeat([]byte{0xaa}, n*page))
}

// zero says whether page n reads as zero.
func zero(d *v.Driver, n int) bool {
	return bytes.Equal(d.Bytes(v.Buf{Addr: memory.GPA(n * page), Len: page}), make([]byte, page))
}

func TestInflate(t *testing.T) {
	dev := balloon.New(balloon.Options{Pages: 3})
	d := v.Start(t, dev)
	if got := d.Reg(v.RegConfig); got != 3 {
		t.Errorf("num_pages %d", got)
	}
	dirty(d, free, 8)
	head := d.Ring(inflateQ).Add(d.Out(pfns(free+1, free+2)), d.Out(pfns(free+3, free+6)))
	d.Kick(inflateQ)
	if got, n := d.Ring(inflateQ).Wait(); got != head || n != 0 {
		t.Errorf("used head %d, %d bytes", got, n)
	}
	for i := range 8 {
		if want := i == 1 || i == 2 || i == 3 || i == 6; zero(d, free+i) != want {
			t.Errorf("page %d was given back: %v, want %v", i, !want, want)
		}
	}
	d.Ring(deflateQ).Add(d.Out(pfns(free+6, free+2)))
	d.Kick(deflateQ)
	d.Ring(deflateQ).Wait()
	if got := dev.Counters(); got != (balloon.Counters{Inflated: 4, Deflated: 2}) {
		t.Errorf("counters %+v", got)
	}
	d.SetReg(v.RegConfig+4, 2)
	if target, actual := dev.Pages(); target != 3 || actual != 2 {
		t.Errorf("pages %d of %d", actual, target)
	}
}

func TestResize(t *testing.T) {
	dev := balloon.New(balloon.Options{})
	d := v.Start(t, dev)
	dev.Resize(1000)
	if got := d.Reg(v.RegConfig); got != 1000 || d.Reg(v.RegInterruptStatus)&2 == 0 {
		t.Errorf("num_pages %d, interrupt status %#x", got, d.Reg(v.RegInterruptStatus))
	}
	d.SetReg(v.RegInterruptACK, 2)
	dev.Resize(1000)
	d.SetReg(v.RegConfig, 7)                                  // not the driver's to write
	d.Transport.Write(v.RegConfig+4, []byte{1})               // nor a part of actual
	d.Transport.Write(v.RegConfig+6, []byte{1, 2, 3, 4})      // nor across its end
	d.Transport.Write(v.RegConfig+0xffff, []byte{1, 2, 3, 4}) // nor anything else
	if target, actual := dev.Pages(); target != 1000 || actual != 0 || d.Reg(v.RegInterruptStatus)&2 != 0 {
		t.Errorf("pages %d of %d, interrupt status %#x", actual, target, d.Reg(v.RegInterruptStatus))
	}
}

// Page numbers that are no memory are ignored, and others in the same request
// are not.
func TestPageNumbersOutOfRange(t *testing.T) {
	const end = v.LowSize / page
	dev := balloon.New(balloon.Options{})
	d := v.Start(t, dev)
	for _, c := range []struct {
		name          string
		pages         []uint32
		good, ignored uint64
	}{
		{"at the end", []uint32{end - 1, end, end + 1}, 1, 2},
		{"in the hole", []uint32{0xc0000, 0xfffff}, 0, 2},
		{"into high memory", []uint32{0xfffff, 0x100000, 0x100001, 0x100002}, 2, 2},
		{"at the top", []uint32{math.MaxUint32, math.MaxUint32 - 1}, 0, 2},
		{"a run that wraps", []uint32{math.MaxUint32, 0}, 1, 1},
		{"one page again and again", []uint32{free, free, free}, 3, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := dev.Counters()
			for _, q := range []int{inflateQ, deflateQ} {
				d.Ring(q).Add(d.Out(pfns(c.pages...)))
				d.Kick(q)
				d.Ring(q).Wait()
			}
			got := dev.Counters()
			if in, out, ignored := got.Inflated-before.Inflated, got.Deflated-before.Deflated,
				got.Ignored-before.Ignored; in != c.good || out != c.good || ignored != 2*c.ignored {
				t.Errorf("%d inflated, %d deflated, %d ignored", in, out, ignored)
			}
			if broken, err := d.Broken(); broken {
				t.Error(err)
			}

		})
	}
}

func TestMalformed(t *testing.T) {
	for _, c := range []struct {
		name  string
		queue int
		bufs  func(*v.Driver) []v.Buf
	}{
		{"half a page number", inflateQ, func(d *v.Driver) []v.Buf { return []v.Buf{d.Out(make([]byte, 6))} }},
		{"writable page numbers", inflateQ, func(d *v.Driver) []v.Buf { return []v.Buf{d.In(4)} }},
		{"too many page numbers", deflateQ, func(d *v.Driver) []v.Buf {
			return []v.Buf{d.Out(make([]byte, 4*balloon.MaxPages+4))}
		}},
		{"124 MiB of page numbers", inflateQ, func(d *v.Driver) []v.Buf {
			return bytesOf(31, 4<<20-16)
		}},
		{"writable statistics", statsQ, func(d *v.Driver) []v.Buf { return []v.Buf{d.In(100)} }},
		{"read-only free pages", reportQ, func(d *v.Driver) []v.Buf { return []v.Buf{d.Out(make([]byte, page))} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := balloon.New(balloon.Options{})
			d := v.Start(t, dev)
			d.Ring(c.queue).Add(c.bufs(d)...)
			d.Kick(c.queue)
			if broken, err := d.Broken(); !broken || !errors.Is(err, balloon.ErrRequest) {
				t.Errorf("broken %v, %v", broken, err)
			}
			d.Init()
			works(t, d)
		})
	}
}

// bytesOf is n readable buffers of the same memory.
func bytesOf(n int, size uint32) []v.Buf {
	bufs := make([]v.Buf, n)
	for i := range bufs {
		bufs[i] = v.Buf{Addr: 16, Len: size}
	}
	return bufs
}

func TestReporting(t *testing.T) {
	dev := balloon.New(balloon.Options{})
	d := v.Start(t, dev)
	dirty(d, free, 8)
	d.Ring(reportQ).Add(
		v.Buf{Addr: (free + 1) * page, Len: 2 * page, Write: true},
		v.Buf{Addr: (free+4)*page + 1, Len: 2*page - 1, Write: true}) // a page, and a part of one
	d.Kick(reportQ)
	d.Ring(reportQ).Wait()
	for i := range 8 {
		if want := i == 1 || i == 2 || i == 5; zero(d, free+i) != want {
			t.Errorf("page %d was given back: %v, want %v", i, !want, want)
		}
	}
	if got := dev.Counters().Reported; got != 4*page-1 {
		t.Errorf("%d bytes reported", got)
	}
}

// partly hides queues from the device, as if the driver had not made them.
type partly struct {
	*balloon.Device
	ready []int
}

func (p *partly) Activate(a virtio.Activation) error {
	for i := range a.Queues {
		if !slices.Contains(p.ready, i) {
			a.Queues[i] = nil
		}
	}
	return p.Device.Activate(a)
}

// Which queue reports free pages depends on the features and on the driver.
func TestReportingQueue(t *testing.T) {
	for _, c := range []struct {
		name   string
		refuse uint64
		ready  []int // queues that the driver makes
		queue  int   // -1: none
	}{
		{"as specified", 0, []int{0, 1, 2, 4}, 4},
		{"as specified, no statistics", 1 << 1, []int{0, 1, 4}, 4},
		{"without gaps", 0, []int{0, 1, 2, 3}, 3},
		{"without gaps, no statistics", 1 << 1, []int{0, 1, 2}, 2},
		{"not agreed on", 1 << 5, []int{0, 1, 2, 3, 4}, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := v.Attach(t, &partly{balloon.New(balloon.Options{}), c.ready})
			d.Refuse = c.refuse
			d.Init()
			dirty(d, free, 1)
			q := c.queue
			if q < 0 {
				q = 4
			}
			ranges := make([]v.Buf, 32) // as many as Linux reports at once
			for i := range ranges {
				ranges[i] = v.Buf{Addr: free * page, Len: page, Write: true}
			}
			d.Ring(q).Add(ranges...)
			d.Kick(q)
			if _, _, ok := d.Ring(q).Next(); ok != (c.queue >= 0) || zero(d, free) != ok {
				t.Errorf("used: %v, page zero: %v", ok, zero(d, free))
			}
		})
	}
}

// stats is a guest's answer.
func stats(pairs ...uint64) []byte {
	var p []byte
	for i := 0; i+1 < len(pairs); i += 2 {
		p = binary.LittleEndian.AppendUint16(p, uint16(pairs[i]))
		p = binary.LittleEndian.AppendUint64(p, pairs[i+1])
	}
	return p
}

// answer is what Stats returned.
type answer struct {
	s   balloon.Stats
	err error
}

// ask calls Stats.
func ask(ctx context.Context, dev *balloon.Device) <-chan answer {
	ch := make(chan answer, 1)
	go func() {
		s, err := dev.Stats(ctx)
		ch <- answer{s, err}
	}()
	return ch
}

// startStats is a balloon whose driver gave its first buffer, and notified of it
// before DRIVER_OK, as Linux does.
func startStats(t *testing.T) (*balloon.Device, *v.Driver) {
	dev := balloon.New(balloon.Options{})
	d := v.Start(t, dev)
	d.Ring(statsQ).Add(d.Out(stats(4, 1)))
	d.Ring(statsQ).NeedsKick()
	return dev, d
}

func TestStats(t *testing.T) {
	dev, d := startStats(t)
	for _, c := range []struct {
		name string
		raw  []byte
		want balloon.Stats
	}{
		{"all", stats(0, 10, 1, 11, 2, 12, 3, 13, 4, 14, 5, 15, 6, 16, 7, 17, 8, 18, 9, 19),
			balloon.Stats{10, 11, 12, 13, 14, 15, 16, 17, 18, 19}},
		{"unknown tags", stats(10, 1, 65535, 2, 5, math.MaxUint64), balloon.Stats{Total: math.MaxUint64}},
		{"a piece at the end", append(stats(4, 7), 5, 0, 1), balloon.Stats{Free: 7}},
		{"far too much", append(make([]byte, 8*balloon.StatsSize), stats(5, 1)...), balloon.Stats{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ask(context.Background(), dev)
			d.Ring(statsQ).Wait() // the device asks
			d.Ring(statsQ).Add(d.Out(c.raw))
			if !d.Ring(statsQ).NeedsKick() {
				t.Error("the device wants no notification of new statistics")
			}
			d.Kick(statsQ)
			if a := <-got; a.err != nil || a.s != c.want {
				t.Errorf("got %+v, %v", a.s, a.err)
			}
		})
	}
}

// Nobody waits for a guest that does not answer.
func TestStatsWithoutAnswer(t *testing.T) {
	dev, d := startStats(t)
	ctx, cancel := context.WithCancel(context.Background())
	got := ask(ctx, dev)
	d.Ring(statsQ).Wait()
	cancel()
	if a := <-got; !errors.Is(a.err, context.Canceled) {
		t.Errorf("cancelled: %+v, %v", a.s, a.err)
	}
	got = ask(context.Background(), dev)
	d.SetReg(v.RegStatus, 0)
	if a := <-got; !errors.Is(a.err, balloon.ErrNoStats) {
		t.Errorf("reset meanwhile: %+v, %v", a.s, a.err)
	}
	if a := <-ask(context.Background(), dev); !errors.Is(a.err, balloon.ErrNoStats) {
		t.Errorf("without a driver: %+v, %v", a.s, a.err)
	}
	d.Refuse = 1 << 1
	d.Init()
	if a := <-ask(context.Background(), dev); !errors.Is(a.err, balloon.ErrNoStats) {
		t.Errorf("without the feature: %+v, %v", a.s, a.err)
	}
}

func works(_ testing.TB, d *v.Driver) {
	d.Ring(inflateQ).Add(d.Out(pfns(0)))
	d.Kick(inflateQ)
	d.Ring(inflateQ).Wait()
}

func FuzzDevice(f *testing.F) {
	f.Add([]byte{0, 8, 5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x80, 1, 0, 0, 0, 0x80, 32, 0, 0, 0, 2, 0, 0, 3, 0})
	f.Add([]byte{1, 4, 0, 0, 0, 0x10, 0x02, 0x10, 2, 0, 2, 4, 0, 3, 4})
	f.Add([]byte{1, 2, 0, 0, 0, 0x80, 40, 0, 0, 0, 2, 2, 0, 3, 2, 2, 2, 0, 3, 2})
	v.Fuzz(f, func(tb testing.TB) virtio.Device {
		ctx, cancel := context.WithCancel(context.Background())
		dev := &asking{Device: balloon.New(balloon.Options{Pages: 10}), ctx: ctx}
		tb.Cleanup(func() {
			cancel()
			dev.wg.Wait()
		})
		return dev
	}, works)
}

// asking is a balloon whose host resizes it and asks for statistics whenever a
// driver comes up.
type asking struct {
	*balloon.Device
	ctx context.Context
	wg  sync.WaitGroup
}

func (a *asking) Activate(act virtio.Activation) error {
	err := a.Device.Activate(act)
	a.wg.Go(func() {
		for i := range uint32(3) {
			a.Resize(i)
			_, _ = a.Stats(a.ctx)
		}
	})
	return err
}
