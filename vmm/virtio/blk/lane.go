package blk

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// maxWorkers bounds the goroutines of a device that wait for its disk.
const maxWorkers = 16

// job is a request and how much of its data was moved.
type job struct {
	lane *lane
	c    *queue.Chain
	r    request
	done int // bytes of IN
}

// lane is one queue of requests. They are executed in turn on the goroutine that
// serves it; only one that waits for the disk while others wait behind it goes
// to a worker.
type lane struct {
	dev   *Device
	queue int
	serve queue.Handler // l.handle
	retry *time.Timer   // serves again when the rate limit allows
	mover mover
	away  atomic.Int32 // jobs with workers
}

func newLane(d *Device, q int) *lane {
	l := &lane{dev: d, queue: q, mover: newMover(d)}
	l.serve = l.handle
	l.retry = time.AfterFunc(math.MaxInt64, func() { d.Kick(q) })
	l.retry.Stop()
	return l
}

// handle takes one request.
func (l *lane) handle(c *queue.Chain) (uint32, error) {
	r, err := parse(c)
	if err != nil {
		return 0, err
	}
	if wait := l.dev.limit.Take(1, r.moves()); wait > 0 {
		l.retry.Reset(wait)
		return 0, queue.Again
	}
	j := job{lane: l, c: c, r: r}
	if l.dev.mayWait(r) && l.busy() {
		if r.kind == typeIn && l.mover.tryRead(&j) {
			return l.mover.run(&j), nil
		}
		l.away.Add(1)
		if l.dev.workers.take(j) {
			return 0, queue.Later
		}
		l.away.Add(-1)
	}
	if r.slow() {
		l.dev.engine.Notify(l.queue)
	}
	return l.mover.run(&j), nil
}

// busy says whether others have to wait while a request waits for the disk.
func (l *lane) busy() bool { return l.away.Load() > 0 || l.dev.engine.Pending(l.queue) }

// tryRead reads what is in the page cache, and says whether that is all. Some
// errors come again when the request is run.
func (m *mover) tryRead(j *job) bool {
	off, ok := m.dev.span(j.r.sector, j.r.in)
	if !ok {
		return true // run refuses it
	}
	if m.dev.align.direct() {
		return false
	}
	j.done, _ = m.read(j.c, off, 0, j.r.in, false)
	return j.done == j.r.in
}

// workers are goroutines that wait for the disk, made when they are needed.
type workers struct {
	jobs    chan job // unbuffered: who sends has found a worker
	started atomic.Int32
	running sync.WaitGroup
}

// take gives a job to a worker, unless all have one.
func (w *workers) take(j job) bool {
	select {
	case w.jobs <- j:
		return true
	default:
	}
	if w.started.Add(1) > maxWorkers {
		w.started.Add(-1)
		return false
	}
	w.running.Go(func() { w.work(j) })
	return true
}

// work does j and the jobs after it, until stop. Jobs of a device that was reset
// meanwhile are dropped by the engine.
func (w *workers) work(j job) {
	m := newMover(j.lane.dev)
	run := func(*queue.Chain) (uint32, error) { return m.run(&j), nil }
	for ok := true; ok; j, ok = <-w.jobs {
		j.lane.dev.engine.Finish(j.lane.queue, j.c, run)
		j.lane.away.Add(-1)
	}
	_ = m.close() // unmapping what was mapped does not fail
}

// stop ends the workers. Precondition: the engine is stopped.
func (w *workers) stop() {
	close(w.jobs)
	w.running.Wait()
}
