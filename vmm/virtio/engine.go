package virtio

import (
	"sync"

	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// Engine is the part that devices share which answer each request before they
// take the next: it guards the Activation and serves queues. The zero Engine is
// stopped. All methods may be called from several goroutines.
type Engine struct {
	mu  sync.Mutex
	act *Activation
}

// Start begins to serve with a's queues.
func (e *Engine) Start(a Activation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.act = &a
}

// Stop waits for the request under way and ends serving.
func (e *Engine) Stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.act = nil
}

// Serve handles the requests in queue q until it is empty or the Engine is
// stopped. handle returns the number of bytes it wrote; its error, like a
// violation by the driver, stops the Engine and is reported as Broken.
func (e *Engine) Serve(q int, handle func(*queue.Chain) (uint32, error)) {
	for e.serveBatch(q, handle) {
	}
}

// serveBatch holds the lock for one queue's worth of requests, so that a guest
// which never stops making requests cannot keep Stop waiting.
func (e *Engine) serveBatch(q int, handle func(*queue.Chain) (uint32, error)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.act == nil || q < 0 || q >= len(e.act.Queues) || e.act.Queues[q] == nil {
		return false
	}
	more, interrupt, err := e.act.Queues[q].Serve(handle)
	if err != nil {
		e.act.Transport.Broken(err)
		e.act = nil
		return false
	}
	if interrupt {
		e.act.Transport.Interrupt()
	}
	return more
}
