package virtio

import (
	"sync"
	"sync/atomic"

	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// Engine is the part that most devices share: it guards the Activation and
// serves queues, different queues at the same time. The zero Engine is stopped.
// All methods may be called from several goroutines.
//
// Guest memory is touched only by handlers, and by nothing after Stop returned.
type Engine struct {
	mu  sync.Mutex // of Start and Stop
	run atomic.Pointer[run]
}

// run is the time between Start and Stop.
type run struct {
	transport Transport
	lanes     []*lane // by queue; nil where the driver made none
}

// lane is one queue at work.
type lane struct {
	q         *queue.Queue
	serving   sync.Mutex    // held to serve
	finishing sync.RWMutex  // held for reading to finish a chain that was kept
	finished  chan struct{} // has a token when one was
}

// Start begins to serve with a's queues.
func (e *Engine) Start(a Activation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stop()
	r := &run{transport: a.Transport, lanes: make([]*lane, len(a.Queues))}
	for i, q := range a.Queues {
		if q != nil {
			r.lanes[i] = &lane{q: q, finished: make(chan struct{}, 1)}
		}
	}
	e.run.Store(r)
}

// Stop waits for the requests under way, which is one a queue at most and those
// in Finish, and ends serving. Chains that handlers kept are forgotten. It must
// not be called by a handler.
func (e *Engine) Stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stop()
}

// Drain is Stop, but waits for the chains that handlers kept to be finished, as
// long as that takes. A request that was left to be taken again is not waited for.
func (e *Engine) Drain() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.run.Load(); r != nil {
		for _, l := range r.lanes {
			if l != nil {
				l.settle()
			}
		}
	}
	e.stop()
}

// settle waits until no chain is outstanding, and has no more taken.
func (l *lane) settle() {
	l.serving.Lock()
	defer l.serving.Unlock()
	for l.q.Outstanding() > 0 && !l.q.Halted() {
		<-l.finished
	}
	l.q.Halt()
}

func (e *Engine) stop() {
	r := e.run.Load()
	if r == nil {
		return
	}
	r.halt()
	for _, l := range r.lanes {
		if l != nil {
			l.drain()
		}
	}
	e.run.Store(nil)
}

// halt makes every lane end soon.
func (r *run) halt() {
	for _, l := range r.lanes {
		if l != nil {
			l.q.Halt()
		}
	}
}

// drain waits for the requests under way. Precondition: the queue is halted, so
// whoever gets the locks later finds that out.
func (l *lane) drain() {
	l.serving.Lock()
	defer l.serving.Unlock()
	l.finishing.Lock()
	defer l.finishing.Unlock()
}

// lane returns queue q's lane, or nil when there is none or the Engine is
// stopped.
func (e *Engine) lane(q int) (*run, *lane) {
	r := e.run.Load()
	if r == nil || q < 0 || q >= len(r.lanes) {
		return nil, nil
	}
	return r, r.lanes[q]
}

// Serve handles the requests in queue q until it is empty, a handler says
// queue.Again, or the Engine is stopped. handle returns the number of bytes it
// wrote, or queue.Later when it keeps the chain for Finish. Any other error,
// like a violation by the driver, stops the Engine and is reported as Broken.
//
// The driver hears of answers batch by batch, and is asked for no notifications
// meanwhile.
func (e *Engine) Serve(q int, handle queue.Handler) {
	r, l := e.lane(q)
	if l == nil {
		return
	}
	l.serving.Lock()
	defer l.serving.Unlock()
	for more := true; more; {
		var interrupt bool
		var err error
		more, interrupt, err = l.q.Serve(handle)
		r.tell(interrupt, err)
	}
}

// Notify lets the driver hear now of what was answered so far, not only at the
// end of the batch. A handler calls it before something that takes long.
func (e *Engine) Notify(q int) {
	if r, l := e.lane(q); l != nil {
		r.tell(l.q.WantsInterrupt())
	}
}

// Pending says whether the driver has made requests available beyond the one
// that is handled. It is for handlers.
func (e *Engine) Pending(q int) bool {
	_, l := e.lane(q)
	return l != nil && l.q.Pending()
}

// Finish runs handle on a chain of queue q that a handler kept with queue.Later,
// and returns the chain to the driver; neither happens when the Engine has been
// stopped since. Several may run at the same time, also of one queue. An error
// from handle is one for Serve; queue.Later keeps the chain further.
func (e *Engine) Finish(q int, c *queue.Chain, handle queue.Handler) {
	r, l := e.lane(q)
	if l == nil {
		return
	}
	l.finishing.RLock()
	defer l.finishing.RUnlock()
	if l.q.Halted() || !l.q.Owns(c) {
		return
	}
	r.tell(l.q.Resume(c, handle))
	select {
	case l.finished <- struct{}{}:
	default:
	}
}

// Complete is Finish for a chain that needs no more work on guest memory.
func (e *Engine) Complete(q int, c *queue.Chain, written uint32) {
	e.Finish(q, c, func(*queue.Chain) (uint32, error) { return written, nil })
}

// tell passes on what a queue said.
func (r *run) tell(interrupt bool, err error) {
	if err != nil {
		r.halt()
		r.transport.Broken(err)
		return
	}
	if interrupt {
		r.transport.Interrupt()
	}
}
