package proxy

import (
	"context"
	"io"
	"sync"
)

// Tasks are goroutines, and what has to be closed for them to end.
type Tasks struct {
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[io.Closer]struct{}
}

// NewTasks returns Tasks without any.
func NewTasks() *Tasks {
	t := &Tasks{open: map[io.Closer]struct{}{}}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// Context ends with Stop.
func (t *Tasks) Context() context.Context { return t.ctx }

// Spawn runs f with what Stop has to close for it to end. It is false, and c are
// closed, after Stop.
func (t *Tasks) Spawn(f func(), c ...io.Closer) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		for _, c := range c {
			_ = c.Close()
		}
		return false
	}
	for _, c := range c {
		t.open[c] = struct{}{}
	}
	t.all.Go(f)
	return true
}

// Keep has Stop close c. It is false, and c is closed, after Stop.
func (t *Tasks) Keep(c io.Closer) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = c.Close()
		return false
	}
	t.open[c] = struct{}{}
	return true
}

// Forget closes what Spawn or Keep kept.
func (t *Tasks) Forget(c ...io.Closer) {
	t.mu.Lock()
	for _, c := range c {
		delete(t.open, c)
	}
	t.mu.Unlock()
	for _, c := range c {
		_ = c.Close()
	}
}

// Stop ends all tasks: it closes what they keep, each after before was called
// for it. It is idempotent.
func (t *Tasks) Stop(before func(io.Closer)) {
	t.mu.Lock()
	t.closed = true
	open := t.open
	t.open = nil
	t.mu.Unlock()
	t.cancel()
	for c := range open {
		if before != nil {
			before(c)
		}
		_ = c.Close()
	}
}

// Wait returns when no task runs any more.
func (t *Tasks) Wait() { t.all.Wait() }

// Slots bound how many there are of something.
type Slots chan struct{}

// Take takes a place; it is false when there is none.
func (s Slots) Take() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// Give gives a place back.
func (s Slots) Give() { <-s }
