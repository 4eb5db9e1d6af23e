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
	// consolePrompt is how long a line may wait for its end before what there is
	// of it is handed on: a prompt has none.
	consolePrompt = 20 * time.Millisecond
)

// console carries the guest's serial output to a writer on a goroutine of its
// own, so that a writer that blocks cannot keep a vCPU from being stopped. It
// hands on whole lines, and the rest after consolePrompt or when the run ends.
type console struct {
	out  io.Writer
	done chan struct{} // the goroutine has ended

	mu      sync.Mutex
	cond    sync.Cond // pending, ready or closing changed
	pending []byte
	ready   bool // there is something worth writing
	closing bool
	prompt  *time.Timer // runs unfinished when armed
	armed   bool
}

// newConsole returns nil for a nil writer: output is then discarded.
func newConsole(out io.Writer) *console {
	if out == nil {
		return nil
	}
	c := &console{out: out, done: make(chan struct{})}
	c.cond.L = &c.mu
	c.prompt = time.AfterFunc(time.Hour, c.unfinished)
	c.prompt.Stop()
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
	} else if !c.armed {
		c.armed = true
		c.prompt.Reset(consolePrompt)
	}
	return len(p), nil
}

// unfinished hands on a line that has not ended.
func (c *console) unfinished() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = false
	if len(c.pending) > 0 {
		c.ready = true
		c.cond.Broadcast()
	}
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
	c.prompt.Stop()
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
