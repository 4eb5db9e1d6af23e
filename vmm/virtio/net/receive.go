package net

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/iovec"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

const (
	// maxVectors bounds the pieces of one readv (IOV_MAX), the spill buffer's
	// among them.
	maxVectors = 1024
	// rxBatch bounds the packets before an interrupt.
	rxBatch = 64
	// spillWait bounds how long a packet waits for more buffers, and with it
	// those behind it. A driver that refills its queue needs microseconds.
	spillWait = 100 * time.Millisecond
)

// next is what the receiver waits for outside the poller.
type next int

const (
	nextBuffers next = iota + 1 // of the guest
	nextPause                   // of the Limiter
	nextNothing                 // it has ended
)

// rxChain is a receive buffer of the guest, gathered for a packet.
type rxChain struct {
	head  uint16
	parts int
	bytes int
}

// receiver owns the receive queue. Only run and what it calls use the fields.
type receiver struct {
	s      *session
	q      *queue.Queue
	kicked chan struct{}
	merge  bool // VIRTIO_NET_F_MRG_RXBUF
	need   int  // bytes to gather: the largest packet to expect

	chain queue.Chain
	// Gathered buffers. A delivery shifts the start of both slices by what it
	// used; they move back to the front of their arrays when the end is near.
	chains, chainSpace []rxChain
	parts, partSpace   []unix.Iovec
	bytes              int // in all of them

	// packet is the length of a packet that was read and not delivered: its
	// first placed bytes are in the gathered buffers, the others in spill.
	packet, placed int
	spill          []byte

	pause    time.Duration
	next     next
	unsignal int // packets since the last interrupt
	drainFn  func(uintptr) bool
}

func newReceiver(s *session, q *queue.Queue) *receiver {
	r := &receiver{s: s, q: q, kicked: make(chan struct{}, 1), merge: s.features&FeatureMrgRxbuf != 0}
	r.need = HeaderLen + minFrame + 4 + int(s.dev.opts.MTU) // 4 for a VLAN tag
	if s.features&(FeatureGuestTSO4|FeatureGuestTSO6) != 0 {
		r.need = maxPacket
	}
	r.spill = make([]byte, maxPacket)
	r.chainSpace = make([]rxChain, 2*queueSize)
	r.chains = r.chainSpace[:0]
	r.partSpace = make([]unix.Iovec, 2*maxVectors)
	r.parts = r.partSpace[:0]
	r.drainFn = r.drain
	return r
}

func (r *receiver) kick() {
	select {
	case r.kicked <- struct{}{}:
	default: // one is pending
	}
}

// run receives until the session ends.
func (r *receiver) run() {
	for {
		if r.s.dev.conn.Read(r.drainFn) != nil { // the deadline: halted
			return
		}
		switch r.next {
		case nextBuffers:
			if !r.await() {
				return
			}
		case nextPause:
			if !r.s.pause(r.pause) {
				return
			}
		case nextNothing:
			return
		}
	}
}

// await waits for buffers; it is false when the session ended.
func (r *receiver) await() bool {
	var limit <-chan time.Time
	if r.packet > 0 {
		t := time.NewTimer(spillWait)
		defer t.Stop()
		limit = t.C
	}
	select {
	case <-r.kicked:
	case <-limit:
		r.drop()
	case <-r.s.stop:
		return false
	}
	return true
}

// drop forgets the packet at hand.
func (r *receiver) drop() {
	r.packet, r.placed = 0, 0
	r.s.dev.rxDropped.Add(1)
}

// drain receives until the backend has nothing more, when it is false, or r.next
// says what else to wait for.
func (r *receiver) drain(fd uintptr) bool {
	empty, err := r.receive(fd)
	if err != nil {
		r.s.fail(err)
		r.next = nextNothing
		return true
	}
	return !empty
}

func (r *receiver) receive(fd uintptr) (empty bool, err error) {
	for !r.s.stopped() {
		if err := r.gather(); err != nil {
			return false, err
		}
		if len(r.chains) == 0 || r.packet > r.bytes {
			r.next = nextBuffers
			if err := r.signal(); err != nil {
				return false, err
			}
			if more, err := r.q.Rearm(); !more || err != nil {
				return false, err
			}
			continue
		}
		if r.packet == 0 {
			n, errno := iovec.Read(fd, append(r.parts, iovec.Of(r.spill)))
			if errno == unix.EAGAIN {
				return true, r.signal()
			}
			if errno != 0 || n == 0 {
				r.s.linkDown()
				break
			}
			r.read(n)
			continue
		}
		if l := r.s.dev.opts.RX; l != nil {
			if r.pause = l.Take(1, r.packet-HeaderLen); r.pause > 0 {
				r.next = nextPause
				return false, r.signal()
			}
		}
		if err := r.deliver(); err != nil {
			return false, err
		}
	}
	r.next = nextNothing
	return false, nil
}

// read notes a packet of n bytes, or drops what is none.
func (r *receiver) read(n int) {
	if n < HeaderLen+minFrame || n > maxPacket {
		r.drop()
		return
	}
	r.packet, r.placed = n, min(n, r.bytes)
}

// gather takes buffers until they hold the largest packet. A packet that waits
// for more than the guest can ever offer at once is dropped.
func (r *receiver) gather() error {
	for want := max(r.need, r.packet); r.bytes < want && !r.full(); {
		ok, err := r.q.Pop(&r.chain)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		if len(r.chain.Readable) != 0 || r.chain.WriteLen() < HeaderLen {
			return fmt.Errorf("receive: %w: %d bytes readable, %d writable", ErrPacket, r.chain.ReadLen(), r.chain.WriteLen())
		}
		r.add()
	}
	if r.packet > r.bytes && r.full() {
		r.drop()
	}
	return nil
}

// full says that no more buffers can be gathered: without MRG_RXBUF a packet has
// one (§5.1.6.3.1).
func (r *receiver) full() bool {
	if !r.merge {
		return len(r.chains) == 1
	}
	return len(r.chains) == r.q.Size() || len(r.parts)+queueSize >= maxVectors
}

// add appends the popped chain, up to the bytes that a packet can use.
func (r *receiver) add() {
	if cap(r.chains) == len(r.chains) {
		r.chains = r.chainSpace[:copy(r.chainSpace, r.chains)]
	}
	if cap(r.parts)-len(r.parts) < queueSize+1 { // 1 for spill
		r.parts = r.partSpace[:copy(r.partSpace, r.parts)]
	}
	c := rxChain{head: r.chain.Head}
	for _, b := range r.chain.Writable {
		b = b[:min(len(b), maxPacket-c.bytes)]
		if len(b) == 0 {
			break
		}
		r.parts = append(r.parts, iovec.Of(b))
		c.parts++
		c.bytes += len(b)
	}
	r.chains = append(r.chains, c)
	r.bytes += c.bytes
}

// deliver gives the packet at hand to the guest. Its buffers are published
// together.
func (r *receiver) deliver() error {
	n := r.packet
	if n > r.placed {
		r.put(r.placed, r.spill[:n-r.placed])
	}
	used, room, parts := 0, 0, 0
	for room < n {
		room += r.chains[used].bytes
		parts += r.chains[used].parts
		used++
	}
	r.put(HeaderLen-2, []byte{byte(used), byte(used >> 8)}) // num_buffers
	left := n
	for _, c := range r.chains[:used-1] {
		if err := r.q.Stage(c.head, uint32(c.bytes)); err != nil {
			return err
		}
		left -= c.bytes
	}
	if err := r.q.Push(r.chains[used-1].head, uint32(left)); err != nil {
		return err
	}
	r.chains, r.parts, r.bytes = r.chains[used:], r.parts[parts:], r.bytes-room
	r.packet, r.placed = 0, 0
	d := r.s.dev
	d.rxPackets.Add(1)
	d.rxBytes.Add(uint64(n - HeaderLen))
	if r.unsignal++; r.unsignal >= rxBatch {
		return r.signal()
	}
	return nil
}

// put copies p into the gathered buffers from byte off on. Precondition: they
// hold as much.
func (r *receiver) put(off int, p []byte) {
	for _, v := range r.parts {
		b := iovec.Bytes(v)
		if off >= len(b) {
			off -= len(b)
			continue
		}
		n := copy(b[off:], p)
		if p, off = p[n:], 0; len(p) == 0 {
			return
		}
	}
}

// signal sends the interrupt for what was delivered, if the guest wants one.
func (r *receiver) signal() error {
	if r.unsignal == 0 {
		return nil
	}
	r.unsignal = 0
	wants, err := r.q.WantsInterrupt()
	if wants {
		r.s.transport.Interrupt()
	}
	return err
}
