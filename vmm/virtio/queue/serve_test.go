package queue_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/duplex-run/duplex/vmm/virtio/queue"
	"github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// The driver says when it wants to be interrupted, with and without EVENT_IDX.
func TestWantsInterrupt(t *testing.T) {
	serve := func(t *testing.T, d *virtqtest.Driver, q *queue.Queue, n int) bool {
		t.Helper()
		for range n {
			d.Ring(0).Add(virtqtest.Buf{Addr: 0x9000, Len: 1})
		}
		_, interrupt, err := q.Serve(func(*queue.Chain) (uint32, error) { return 0, nil })
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			if _, _, ok := d.Ring(0).Next(); !ok {
				t.Fatal("chain not used")
			}
		}
		return interrupt
	}
	t.Run("flags", func(t *testing.T) {
		d, q := start(t, queue.FeatureEventIdx)
		if !serve(t, d, q, 1) {
			t.Error("no interrupt though the flags ask for it")
		}
		d.Ring(0).SetAvailFlags(1)
		if serve(t, d, q, 1) {
			t.Error("interrupt in spite of NO_INTERRUPT")
		}
		if serve(t, d, q, 0) {
			t.Error("interrupt for nothing")
		}
	})
	t.Run("event index", func(t *testing.T) {
		d, q := start(t, 0)
		r := d.Ring(0)
		r.SetUsedEvent(0)
		if !serve(t, d, q, 1) { // used 0 -> 1, crosses 0
			t.Error("no interrupt at the event index")
		}
		if got := r.AvailEvent(); got != 1 {
			t.Errorf("avail_event is %d, want 1", got)
		}
		r.SetUsedEvent(4)
		if serve(t, d, q, 3) { // used 1 -> 4
			t.Error("interrupt before the event index")
		}
		if !serve(t, d, q, 2) { // used 4 -> 6, crosses 4
			t.Error("no interrupt past the event index")
		}
	})
}

func TestRearmSeesLateChain(t *testing.T) {
	d, q := start(t, 0)
	served := 0
	d.Ring(0).Add(d.Out([]byte{1}))
	more, _, err := q.Serve(func(*queue.Chain) (uint32, error) {
		if served++; served == 1 {
			for range 7 { // while the device works; with the first, one queue's worth
				d.Ring(0).Add(d.Out([]byte{2}))
			}
		}
		return 0, nil
	})
	if err != nil || more || served != 8 {
		t.Errorf("served %d, more %v, %v", served, more, err)
	}
	d.Ring(0).Next()
	d.Ring(0).Add(d.Out([]byte{3}))
	if more, err := q.Rearm(); !more || err != nil {
		t.Errorf("rearm: %v, %v", more, err)
	}
}

// A batch ends, so that the driver hears of its first answers, after some bytes
// or some time; and nothing is lost.
func TestBatchBounds(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes uint32
		takes time.Duration
		want  int // chains in the first batch
	}{
		{"quick and small", 1, 0, 64},
		{"large", 100 << 10, 0, 3},
		{"slow", 1, 20 * time.Microsecond, 24},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tap := &virtqtest.Tap{Sizes: []uint16{64}}
				d := virtqtest.Start(t, tap)
				q := tap.Act.Queues[0]
				for range 64 {
					d.Ring(0).Add(virtqtest.Buf{Addr: 0x100000, Len: c.bytes})
				}
				served, first := 0, 0
				for more := true; more; {
					var interrupt bool
					var err error
					more, interrupt, err = q.Serve(func(*queue.Chain) (uint32, error) {
						served++
						time.Sleep(c.takes)
						return 0, nil
					})
					if err != nil || first == 0 && !interrupt {
						t.Fatalf("interrupt %v, %v", interrupt, err)
					}
					if first == 0 {
						first = served
					}
				}
				if first != c.want || served != 64 {
					t.Errorf("served %d, then all of %d; want %d", first, served, c.want)
				}
			})
		})
	}
}

// A driver that makes chains available again and again, while the device keeps
// them, gets no more of the device's memory than a queue's worth.
func TestMoreOutstandingThanTheQueueHolds(t *testing.T) {
	d, q := start(t, 0)
	r := d.Ring(0)
	r.SetDesc(0, ds(0x1000, 1, 0, 0))
	kept := 0
	keep := func(*queue.Chain) (uint32, error) { kept++; return 0, queue.Later }
	for range 8 {
		r.Publish(0)
	}
	if _, _, err := q.Serve(keep); err != nil || kept != 8 {
		t.Fatalf("kept %d, %v", kept, err)
	}
	r.Publish(0)
	if _, _, err := q.Serve(keep); !errors.Is(err, queue.ErrInUse) || kept != 8 {
		t.Fatalf("kept %d, %v", kept, err)
	}
	expectBroken(t, q, queue.ErrInUse)
}

func BenchmarkPopPush(b *testing.B) {
	bufs := []virtqtest.Buf{{Addr: 0x9000, Len: 16}, {Addr: 0xa000, Len: 4096, Write: true}, {Addr: 0xb000, Len: 1, Write: true}}
	for _, n := range []int{1, 16} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			tap := &virtqtest.Tap{Sizes: []uint16{64}}
			d := virtqtest.Start(b, tap)
			q := tap.Act.Queues[0]
			p := virtqtest.NewPump(d.Ring(0), n, bufs...)
			var c queue.Chain
			b.ReportAllocs()
			for b.Loop() {
				p.Refill()
				for {
					ok, err := q.Pop(&c)
					if err != nil {
						b.Fatal(err)
					}
					if !ok {
						break
					}
					if err := q.Push(c.Head, 1); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
