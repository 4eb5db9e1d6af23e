package vmm

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"
)

const (
	consoleRoom  = 64 << 10 // bytes that may wait for the writer
	consoleFlush = 50 * time.Millisecond
)

// console carries the guest's serial output to a writer on a goroutine of its
// own, so that a writer that blocks cannot keep a vCPU from being stopped. It
// hands on whole lines, and the rest when the run ends.
type console struct {
	out  io.Writer
	done chan struct{} // the goroutine has ended

	mu      sync.Mutex
	cond    sync.Cond // pending, ready or closing changed
	pending []byte
	ready   bool // there is something worth writing
	closing bool
}

// newConsole returns nil for a nil writer: output is then discarded.
func newConsole(out io.Writer) *console {
	if out == nil {
		return nil
	}
	c := &console{out: out, done: make(chan struct{})}
	c.cond.L = &c.mu
	go c.pump()
	return c
}

// Write takes what the guest sent. It waits while consoleRoom bytes are
// pending, until the writer takes some or release is. It never fails.
func (c *console) Write(p []byte) (int, error) {
	if c == nil {
		return len(p), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.pending)+len(p) > consoleRoom && !c.closing {
		c.cond.Wait()
	}
	if c.closing {
		return len(p), nil
	}
	c.pending = append(c.pending, p...)
	if bytes.IndexByte(p, '\n') >= 0 || len(c.pending) >= consoleRoom/2 {
		c.ready = true
		c.cond.Broadcast()
	}
	return len(p), nil
}

func (c *console) pump() {
	defer close(c.done)
	c.mu.Lock()
	defer c.mu.Unlock()
	var buf []byte
	for {
		for !c.ready && !c.closing {
			c.cond.Wait()
		}
		if len(c.pending) == 0 && c.closing {
			return
		}
		buf, c.pending = c.pending, buf[:0]
		c.ready = false
		c.cond.Broadcast()
		c.mu.Unlock()
		_, _ = c.out.Write(buf) // the console has nobody to report to
		c.mu.Lock()
	}
}

// release lets no more output in, so that a vCPU that waits here goes on.
func (c *console) release() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	c.cond.Broadcast()
}

// drain releases the console and waits until what is pending is written, or ctx
// ends and consoleFlush has passed: a writer that blocks then is left to itself,
// with the goroutine that waits for it.
func (c *console) drain(ctx context.Context) {
	if c == nil {
		return
	}
	c.release()
	select {
	case <-c.done:
		return
	case <-ctx.Done():
	}
	select {
	case <-c.done:
	case <-time.After(consoleFlush):
	}
}
