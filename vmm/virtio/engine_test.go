package virtio_test

import (
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// device serves two queues of 8 with handlers of the test.
type device struct {
	virtio.Engine
	handle [2]queue.Handler
}

func (d *device) Type() uint32               { return 42 }
func (d *device) Features() uint64           { return 0 }
func (d *device) QueueSizes() []uint16       { return []uint16{8, 8} }
func (d *device) ReadConfig(uint64, []byte)  {}
func (d *device) WriteConfig(uint64, []byte) {}
func (d *device) Kick(q int)                 { d.Serve(q, d.handle[q]) }
func (d *device) Reset()                     { d.Stop() }
func (d *device) Close() error               { d.Stop(); return nil }
func (d *device) Activate(a virtio.Activation) error {
	d.Start(a)
	return nil
}

var _ virtio.Device = (*device)(nil)

// interrupted takes a pending interrupt.
func interrupted(d *v.Driver) bool {
	select {
	case <-d.Interrupts():
		d.Acknowledge()
		return true
	default:
		return false
	}
}

// A driver that goes on making requests while the device works needs not notify
// it, and hears of the answers once.
func TestBusyQueueNeedsNoNotifications(t *testing.T) {
	for name, refuse := range map[string]uint64{"event index": 0, "flags": queue.FeatureEventIdx} {
		t.Run(name, func(t *testing.T) {
			const requests = 1000
			dev := &device{}
			d := v.Attach(t, dev)
			d.Refuse = refuse
			d.Init()
			r := d.Ring(0)
			buf := v.Buf{Addr: 0x9000, Len: 1, Write: true}
			wantsKick := r.NeedsKick
			if refuse != 0 {
				wantsKick = func() bool { return r.UsedFlags()&1 == 0 }
			}
			made, kicks, answered := 0, 0, 0
			add := func() {
				r.Add(buf)
				if made++; wantsKick() {
					kicks++
				}
			}
			reap := func() {
				for {
					if _, _, ok := r.Next(); !ok {
						return
					}
					answered++
				}
			}
			dev.handle[0] = func(c *queue.Chain) (uint32, error) {
				for reap(); made < requests && made-answered < 6; {
					add() // the driver is another CPU
				}
				return 1, nil
			}
			add()
			d.Kick(0)
			reap()
			if answered != requests || kicks != 1 {
				t.Errorf("%d requests made, %d answered, with %d notifications; want 1", made, answered, kicks)
			}
			if add(); kicks != 2 {
				t.Error("no notification wanted though the device is idle")
			}
		})
	}
}

// A queue is served while another's handler does not return.
func TestQueuesInParallel(t *testing.T) {
	entered, release := make(chan bool), make(chan bool)
	dev := &device{}
	dev.handle[0] = func(*queue.Chain) (uint32, error) { entered <- true; <-release; return 0, nil }
	dev.handle[1] = func(*queue.Chain) (uint32, error) { return 0, nil }
	d := v.Start(t, dev)
	for i := range 2 {
		d.Ring(i).Add(v.Buf{Addr: 0x9000, Len: 1})
	}
	done := make(chan bool)
	go func() { dev.Kick(0); close(done) }()
	<-entered
	dev.Kick(1)
	if _, _, ok := d.Ring(1).Next(); !ok {
		t.Error("queue 1 waits for queue 0")
	}
	close(release)
	<-done
}

// A guest that never stops making requests cannot keep a reset waiting.
func TestStopEndsABusyQueue(t *testing.T) {
	dev := &device{}
	d := v.Start(t, dev)
	r := d.Ring(0)
	var served atomic.Int64
	dev.handle[0] = func(*queue.Chain) (uint32, error) {
		r.Next()
		r.Add(v.Buf{Addr: 0x9000, Len: 1})
		served.Add(1)
		return 0, nil
	}
	r.Add(v.Buf{Addr: 0x9000, Len: 1})
	done := make(chan bool)
	go func() { dev.Kick(0); close(done) }()
	for served.Load() < 100 {
		runtime.Gosched()
	}
	dev.Stop()
	at := served.Load()
	<-done
	if now := served.Load(); now != at {
		t.Errorf("served %d requests after Stop", now-at)
	}
}

// Chains are answered later, in another order, from another goroutine.
func TestLater(t *testing.T) {
	dev := &device{}
	d := v.Start(t, dev)
	var kept []*queue.Chain
	dev.handle[0] = func(c *queue.Chain) (uint32, error) {
		kept = append(kept, c)
		return 0, queue.Later
	}
	for range 3 { // storage is used again
		var heads []uint16
		kept = nil
		for i := range 8 {
			heads = append(heads, d.Ring(0).Add(d.Out([]byte{byte(i)})))
		}
		d.Kick(0)
		if _, _, ok := d.Ring(0).Next(); ok || len(kept) != 8 {
			t.Fatalf("%d chains kept, used %v", len(kept), ok)
		}
		interrupted(d)
		slices.Reverse(kept)
		for i, c := range kept {
			if want := byte(7 - i); c.Readable[0][0] != want {
				t.Fatalf("chain of %d has %d", want, c.Readable[0][0])
			}
			d.Ring(0).EnableInterrupt()
			done := make(chan bool)
			go func() { dev.Complete(0, c, uint32(i)); close(done) }()
			<-done
			h, n, ok := d.Ring(0).Next()
			if !ok || h != heads[7-i] || n != uint32(i) || !interrupted(d) {
				t.Fatalf("used %d, %d, %v", h, n, ok)
			}
		}
	}
}

func TestStopForgetsKeptChains(t *testing.T) {
	dev := &device{}
	d := v.Start(t, dev)
	var kept *queue.Chain
	dev.handle[0] = func(c *queue.Chain) (uint32, error) { kept = c; return 0, queue.Later }
	d.Ring(0).Add(v.Buf{Addr: 0x9000, Len: 1})
	d.Kick(0)
	for range 2 {
		d.Init() // other queues, at the same place in memory
		dev.Finish(0, kept, func(*queue.Chain) (uint32, error) {
			t.Error("work on a chain of before the reset")
			return 0, nil
		})
		if _, _, ok := d.Ring(0).Next(); ok {
			t.Error("a chain of before the reset was used")
		}
	}
}

// A chain that was kept can be kept further, or turn out to break the rules.
func TestFinish(t *testing.T) {
	boom := errors.New("boom")
	dev := &device{}
	d := v.Start(t, dev)
	var kept *queue.Chain
	dev.handle[0] = func(c *queue.Chain) (uint32, error) { kept = c; return 0, queue.Later }
	d.Ring(0).Add(v.Buf{Addr: 0x9000, Len: 1})
	d.Kick(0)
	answer := func(n uint32, err error) queue.Handler {
		return func(*queue.Chain) (uint32, error) { return n, err }
	}
	dev.Finish(0, kept, answer(0, queue.Later))
	dev.Finish(1, kept, answer(5, nil)) // not of that queue
	if _, _, ok := d.Ring(0).Next(); ok {
		t.Error("used though it is kept")
	}
	dev.Finish(0, kept, answer(5, nil))
	if _, n, ok := d.Ring(0).Next(); !ok || n != 5 {
		t.Errorf("used %d, %v", n, ok)
	}
	d.Ring(0).Add(v.Buf{Addr: 0x9000, Len: 1})
	d.Kick(0)
	dev.Finish(0, kept, answer(0, boom))
	if broken, err := d.Broken(); !broken || !errors.Is(err, boom) {
		t.Errorf("broken %v: %v", broken, err)
	}
}

// Stop waits for work on chains that were kept.
func TestStopWaitsForFinish(t *testing.T) {
	dev := &device{}
	d := v.Start(t, dev)
	var kept *queue.Chain
	dev.handle[0] = func(c *queue.Chain) (uint32, error) { kept = c; return 0, queue.Later }
	d.Ring(0).Add(v.Buf{Addr: 0x9000, Len: 1})
	d.Kick(0)
	entered, release, stopped := make(chan bool), make(chan bool), make(chan bool)
	var finished atomic.Bool
	go dev.Finish(0, kept, func(*queue.Chain) (uint32, error) {
		close(entered)
		<-release
		finished.Store(true)
		return 0, nil
	})
	<-entered
	go func() {
		dev.Stop()
		if !finished.Load() {
			t.Error("Stop did not wait")
		}
		close(stopped)
	}()
	close(release)
	<-stopped
}

// A handler that cannot go on leaves the request where it is.
func TestAgain(t *testing.T) {
	dev := &device{}
	d := v.Start(t, dev)
	ready, calls := false, 0
	dev.handle[0] = func(*queue.Chain) (uint32, error) {
		if calls++; !ready {
			return 0, queue.Again
		}
		return 7, nil
	}
	head := d.Ring(0).Add(v.Buf{Addr: 0x9000, Len: 1})
	d.Ring(0).Add(v.Buf{Addr: 0x9000, Len: 1})
	d.Kick(0)
	d.Kick(0)
	if _, _, ok := d.Ring(0).Next(); ok || calls != 2 {
		t.Errorf("%d calls, used %v", calls, ok)
	}
	ready = true
	dev.Kick(0)
	if h, n, ok := d.Ring(0).Next(); !ok || h != head || n != 7 || calls != 4 {
		t.Errorf("used %d, %d, %v after %d calls", h, n, ok, calls)
	}
}

// A violation in one queue ends all.
func TestBrokenStopsAllQueues(t *testing.T) {
	boom := errors.New("boom")
	dev := &device{}
	dev.handle[0] = func(*queue.Chain) (uint32, error) { return 0, boom }
	dev.handle[1] = func(*queue.Chain) (uint32, error) { t.Error("served"); return 0, nil }
	d := v.Start(t, dev)
	for i := range 2 {
		d.Ring(i).Add(v.Buf{Addr: 0x9000, Len: 1})
	}
	dev.Kick(0)
	dev.Kick(1)
	if broken, err := d.Broken(); !broken || !errors.Is(err, boom) {
		t.Errorf("broken %v: %v", broken, err)
	}
}

// Notify tells of answers before the batch ends.
func TestNotify(t *testing.T) {
	dev := &device{}
	d := v.Start(t, dev)
	calls := 0
	dev.handle[0] = func(*queue.Chain) (uint32, error) {
		if calls++; calls == 2 {
			if interrupted(d) {
				t.Error("interrupt before Notify")
			}
			if dev.Notify(0); !interrupted(d) {
				t.Error("no interrupt")
			}
		}
		return 0, nil
	}
	d.Ring(0).EnableInterrupt()
	d.Ring(0).Add(v.Buf{Addr: 0x9000, Len: 1})
	d.Ring(0).Add(v.Buf{Addr: 0x9000, Len: 1})
	d.Kick(0)
	dev.Stop()
	dev.Notify(0) // of a stopped Engine: nothing
}

func BenchmarkServe(b *testing.B) {
	dev := &device{}
	dev.handle[0] = func(*queue.Chain) (uint32, error) { return 1, nil }
	d := v.Start(b, dev)
	p := v.NewPump(d.Ring(0), 4, v.Buf{Addr: 0x9000, Len: 16}, v.Buf{Addr: 0xa000, Len: 512, Write: true})
	b.ReportAllocs()
	for b.Loop() {
		p.Refill()
		dev.Kick(0)
	}
}

func BenchmarkLater(b *testing.B) {
	dev := &device{}
	var kept [4]*queue.Chain
	n := 0
	dev.handle[0] = func(c *queue.Chain) (uint32, error) {
		kept[n] = c
		n++
		return 0, queue.Later
	}
	d := v.Start(b, dev)
	p := v.NewPump(d.Ring(0), 4, v.Buf{Addr: 0x9000, Len: 16}, v.Buf{Addr: 0xa000, Len: 512, Write: true})
	b.ReportAllocs()
	for b.Loop() {
		p.Refill()
		dev.Kick(0)
		for _, c := range kept[:n] {
			dev.Complete(0, c, 1)
		}
		n = 0
	}
}
