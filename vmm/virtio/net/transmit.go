package net

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/iovec"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// ErrPacket reports a chain that is no packet: one without room for a header, or
// with buffers of the wrong direction (§5.1.6.2, §5.1.6.3).
var ErrPacket = errors.New("malformed packet buffer")

// transmitter sends what the guest makes available in its transmit queue.
type transmitter struct {
	s *session

	mu sync.Mutex
	// blocked: the packet at hand is with run, which alone goes on.
	blocked bool
	ended   bool
	wake    chan time.Duration // to run: how long to wait before sending

	q      *queue.Queue
	chain  queue.Chain
	header [HeaderLen]byte
	vec    []unix.Iovec // the header, then the frame's pieces in guest memory
	frame  int          // bytes
	// packets is what the frame is going to be, by segmentation.
	packets int
	errno   unix.Errno

	once, attempt func(uintptr) bool // method values made once
}

func newTransmitter(s *session, q *queue.Queue) *transmitter {
	t := &transmitter{s: s, q: q, wake: make(chan time.Duration, 1)}
	t.vec = make([]unix.Iovec, 0, q.Size()+1)
	t.attempt = t.write
	t.once = func(fd uintptr) bool {
		t.write(fd)
		return true
	}
	return t
}

// serve works until the queue is empty or the backend has no room.
func (t *transmitter) serve() {
	for t.batch() {
	}
}

// batch holds the lock for one queue's worth of packets, so that a guest which
// sends all the time cannot keep a reset waiting.
func (t *transmitter) batch() (more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.blocked || t.ended || t.s.stopped() {
		return false
	}
	more, err := t.sendBatch()
	if err != nil {
		t.s.fail(err)
		return false
	}
	return more
}

func (t *transmitter) sendBatch() (more bool, err error) {
	for range t.q.Size() {
		ok, err := t.q.Pop(&t.chain)
		if err != nil {
			return false, err
		}
		if !ok {
			break
		}
		packets, err := t.prepare()
		if err != nil {
			return false, err
		}
		if packets > 0 {
			t.packets = packets
			if wait := t.take(); wait > 0 {
				return false, t.block(wait)
			}
			if t.s.dev.conn.Write(t.once) != nil { // the deadline: halted
				return false, nil
			}
			if t.errno == unix.EAGAIN {
				return false, t.block(0)
			}
		}
		if err := t.done(packets > 0); err != nil {
			return false, err
		}
	}
	if err := t.interrupt(); err != nil {
		return false, err
	}
	return t.q.Rearm()
}

// prepare makes the vector of the chain at hand and returns how many packets it
// is: 0 when it is to be dropped. The header is read once.
func (t *transmitter) prepare() (packets int, err error) {
	c := &t.chain
	if len(c.Writable) != 0 || c.ReadLen() < HeaderLen {
		return 0, fmt.Errorf("transmit: %w: %d bytes readable, %d writable", ErrPacket, c.ReadLen(), c.WriteLen())
	}
	c.CopyOut(t.header[:], 0)
	t.frame = c.ReadLen() - HeaderLen
	h, packets, err := ParseHeader(t.header[:]).Sanitize(t.frame, t.s.features)
	if err != nil {
		return 0, nil
	}
	h.Put(t.header[:])
	t.vec = append(t.vec[:0], iovec.Of(t.header[:]))
	skip := HeaderLen
	for _, b := range c.Readable {
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		t.vec = append(t.vec, iovec.Of(b[skip:]))
		skip = 0
	}
	return packets, nil
}

// take asks the Limiter for the packet at hand.
func (t *transmitter) take() time.Duration {
	if l := t.s.dev.opts.TX; l != nil {
		return l.Take(t.packets, t.frame)
	}
	return 0
}

// write is false when the backend has no room.
func (t *transmitter) write(fd uintptr) bool {
	_, t.errno = iovec.Write(fd, t.vec)
	return t.errno != unix.EAGAIN
}

// done gives the chain at hand back. A packet that the backend refused, such as
// one for an interface that is down, is lost like one on a wire.
func (t *transmitter) done(sent bool) error {
	d := t.s.dev
	if sent && t.errno == 0 {
		d.txPackets.Add(1)
		d.txBytes.Add(uint64(t.frame))
	} else {
		d.txDropped.Add(1)
	}
	return t.q.Push(t.chain.Head, 0)
}

func (t *transmitter) interrupt() error {
	wants, err := t.q.WantsInterrupt()
	if wants {
		t.s.transport.Interrupt()
	}
	return err
}

// block hands the packet at hand to run.
func (t *transmitter) block(wait time.Duration) error {
	t.blocked = true
	t.wake <- wait
	return t.interrupt()
}

// run sends the packets that a kick could not, and goes on from there.
func (t *transmitter) run() {
	for {
		var wait time.Duration
		select {
		case <-t.s.stop:
			return
		case wait = <-t.wake:
		}
		for ; wait > 0; wait = t.take() {
			if !t.s.pause(wait) {
				return
			}
		}
		if t.s.dev.conn.Write(t.attempt) != nil {
			return
		}
		t.unblock()
		t.serve()
	}
}

// end waits for a kick under way; later ones do nothing.
func (t *transmitter) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
}

func (t *transmitter) unblock() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blocked = false
	if err := t.done(true); err != nil {
		t.s.fail(err)
	}
}
