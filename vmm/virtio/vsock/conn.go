package vsock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Conn is a stream between the guest and this process. It is a net.Conn whose
// methods may be called from several goroutines.
type Conn struct {
	dev *Device
	key key

	writing sync.Mutex // one Write at a time; taken before dev.mu

	// All below is guarded by dev.mu.
	cond *sync.Cond    // something that Read or Write waits for changed
	err  error         // why the stream is gone; set once
	gone chan struct{} // closed when err is set

	in      ring
	fwd     uint32 // bytes that left in (§5.10.6.3: fwd_cnt)
	toldFwd uint32 // fwd as the guest knows it

	out       []byte // what Write still has to send; the caller's memory
	sentCnt   uint32 // bytes sent (tx_cnt)
	peerAlloc uint32 // the guest's buf_alloc
	peerFwd   uint32 // the guest's fwd_cnt

	shut, shutSent uint32 // what this end will do no more; what the guest knows
	peerShut       uint32 // what the guest will do no more
	shutOrder      uint32 // when all was shut, by dev.shuts
	dialing        bool   // the guest did not answer the REQUEST yet
	request        bool   // a REQUEST is due
	pending        bool   // the guest waits for admit or refuse
	respond        bool   // a RESPONSE is due
	tellCredit     bool   // a CREDIT_UPDATE is due
	queued         bool   // in dev.ready

	readBy, writeBy       time.Time
	readTimer, writeTimer *time.Timer
}

var _ net.Conn = (*Conn)(nil)

func newConn(d *Device, k key) *Conn {
	return &Conn{dev: d, key: k, cond: sync.NewCond(&d.mu), gone: make(chan struct{})}
}

// fail ends the stream; buffered data stays readable.
func (c *Conn) fail(err error) {
	if c.err == nil {
		c.err = err
		close(c.gone)
		if c.in.n == 0 {
			c.dropRing()
		}
	}
	c.cond.Broadcast()
}

// resetError is what a RST by the guest means: a refusal, the end of a stream
// that both sides shut down, or that the guest did, and otherwise a broken one.
func (c *Conn) resetError() error {
	if c.dialing {
		return syscall.ECONNREFUSED
	}
	if c.peerShut&shutSend != 0 || c.shut == shutBoth {
		return io.EOF
	}
	return syscall.ECONNRESET
}

// Read implements net.Conn. It returns io.EOF when the guest has shut down its
// sending side, and ECONNRESET when the stream broke.
func (c *Conn) Read(p []byte) (int, error) {
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	for {
		switch {
		case c.shut&shutReceive != 0:
			return 0, c.opError("read", net.ErrClosed)
		case expired(c.readBy):
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		case c.in.n > 0:
			return c.take(p), nil
		case c.peerShut&shutSend != 0, errors.Is(c.err, io.EOF):
			return 0, io.EOF
		case c.err != nil:
			return 0, c.opError("read", c.err)
		}
		c.cond.Wait()
	}
}

// take moves buffered bytes to p, and tells the guest of the room when half of
// the buffer became free since it was told last.
func (c *Conn) take(p []byte) int {
	n := c.in.read(p)
	c.fwd += uint32(n)
	if c.err != nil && c.in.n == 0 {
		c.dropRing()
	}
	if c.err == nil && c.fwd-c.toldFwd >= BufferSize/2 {
		c.tellCredit = true
		c.dev.schedule(c)
		c.dev.flush()
	}
	return n
}

// Write implements net.Conn. It returns when all of p is in the guest's
// buffers. It fails with EPIPE when the guest will read no more.
func (c *Conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	c.out = p
	for begun := false; ; {
		err := c.writeError()
		switch {
		case begun && len(c.out) == 0:
			return len(p), nil
		case err != nil:
			left := len(c.out)
			c.out = nil
			c.dev.schedule(c) // a shutdown may have waited for the data
			c.dev.flush()
			return len(p) - left, c.opError("write", err)
		case begun:
			c.cond.Wait()
		default:
			begun = true
			c.dev.schedule(c)
			c.dev.flush()
		}
	}
}

// writeError is why nothing more can be written now, or nil.
func (c *Conn) writeError() error {
	switch {
	case c.shut&shutSend != 0:
		return net.ErrClosed
	case c.peerShut&shutReceive != 0, errors.Is(c.err, io.EOF):
		return syscall.EPIPE
	case c.err != nil:
		return c.err
	case expired(c.writeBy):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// CloseWrite tells the guest that nothing more will be sent: it reads EOF.
func (c *Conn) CloseWrite() error { return c.shutdown(shutSend) }

// CloseRead tells the guest that nothing more will be read: its writes fail
// with EPIPE. What is buffered is dropped.
func (c *Conn) CloseRead() error { return c.shutdown(shutReceive) }

// Close implements net.Conn. The guest can still read what was written. It is
// idempotent.
func (c *Conn) Close() error {
	err := c.shutdown(shutBoth)
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	for _, t := range []*time.Timer{c.readTimer, c.writeTimer} {
		if t != nil {
			t.Stop()
		}
	}
	return err
}

func (c *Conn) shutdown(how uint32) error {
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	c.shut |= how
	if how&shutReceive != 0 {
		c.fwd += uint32(c.in.n)
		c.dropRing()
	}
	c.cond.Broadcast() // a Write under way gives up what it has left
	c.dev.schedule(c)
	c.dev.flush()
	return nil
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(&c.readBy, &c.readTimer, t)
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(&c.writeBy, &c.writeTimer, t)
}

func (c *Conn) setDeadline(by *time.Time, timer **time.Timer, t time.Time) error {
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
	*by = t
	if !t.IsZero() {
		*timer = time.AfterFunc(time.Until(t), func() {
			c.dev.mu.Lock()
			defer c.dev.mu.Unlock()
			c.cond.Broadcast()
		})
	}
	c.cond.Broadcast()
	return nil
}

func expired(by time.Time) bool { return !by.IsZero() && !time.Now().Before(by) }

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "vsock", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return Addr{HostCID, c.key.host} }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return Addr{c.dev.cid, c.key.guest} }

// Addr is a socket address (§5.10.4).
type Addr struct {
	CID  uint64
	Port uint32
}

// Network implements net.Addr.
func (Addr) Network() string { return "vsock" }

func (a Addr) String() string { return fmt.Sprintf("%d:%d", a.CID, a.Port) }
