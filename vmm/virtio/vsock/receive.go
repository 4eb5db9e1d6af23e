package vsock

import (
	"fmt"
	"syscall"

	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// packet handles one packet from the guest. An error means that the driver
// broke the rules of the device; what breaks those of a stream resets it.
func (d *Device) packet(c *queue.Chain) error {
	h, payload, ok := parse(c)
	if !ok {
		return fmt.Errorf("%w: %d bytes", ErrPacket, c.ReadLen())
	}
	if h.srcCID != d.cid {
		return nil // an address that is not the sender's own: dropped (§5.10.6.2)
	}
	conn := d.conns[key{host: h.dstPort, guest: h.srcPort}]
	if h.dstCID != HostCID || h.kind != typeStream {
		conn = nil
	}
	switch {
	case h.op == opRst:
		if conn != nil {
			d.remove(conn, conn.resetError())
		}
	case conn != nil:
		d.connPacket(conn, h, c, payload)
	case h.op == opRequest && h.dstCID == HostCID && h.kind == typeStream:
		d.request(h)
	default:
		d.replies = append(d.replies, h.reset())
	}
	return nil
}

// request opens a stream, or refuses it.
func (d *Device) request(h header) {
	l := d.listeners[h.dstPort]
	if l == nil {
		l = d.anyPort
	}
	if l == nil || len(l.backlog) >= Backlog || len(d.conns) >= MaxConns && !d.evict() {
		d.replies = append(d.replies, h.reset())
		return
	}
	c := newConn(d, key{host: h.dstPort, guest: h.srcPort})
	c.peerAlloc, c.peerFwd = h.bufAlloc, h.fwdCnt
	c.respond, c.pending = l != d.anyPort, l == d.anyPort
	d.conns[c.key] = c
	d.schedule(c)
	l.backlog = append(l.backlog, c)
	l.cond.Signal()
}

// connPacket handles a packet of an open stream, other than RST.
func (d *Device) connPacket(c *Conn, h header, chain *queue.Chain, payload int) {
	c.peerAlloc, c.peerFwd = h.bufAlloc, h.fwdCnt
	if c.dialing || c.pending {
		d.answer(c, h)
		return
	}
	switch h.op {
	case opRW:
		if !c.accept(chain, int64(h.len), payload) {
			d.replies = append(d.replies, h.reset())
			d.remove(c, syscall.ECONNRESET)
			return
		}
	case opShutdown:
		c.peerShut |= h.flags & shutBoth
		if c.peerShut == shutBoth {
			// The guest waits for this to free its end (§5.10.6.5).
			d.replies = append(d.replies, h.reset())
			d.remove(c, c.resetError())
			return
		}
		c.cond.Broadcast()
	case opCreditRequest:
		c.tellCredit = true
	case opCreditUpdate:
	default: // REQUEST or RESPONSE on an open stream, or no operation
		d.replies = append(d.replies, h.reset())
		d.remove(c, syscall.ECONNRESET)
		return
	}
	d.schedule(c) // credit may let a writer go on
}

// answer handles what the guest says on a stream that is not open yet: RESPONSE
// to a REQUEST of Dial that went out, or nonsense.
func (d *Device) answer(c *Conn, h header) {
	if h.op != opResponse || c.request || c.pending {
		d.replies = append(d.replies, h.reset())
		d.remove(c, syscall.ECONNRESET)
		return
	}
	c.dialing = false
	c.cond.Broadcast()
}

// accept buffers the payload of a packet. It is false when the packet lies
// about its length, exceeds the credit, or comes after the stream's end; and
// when all buffers are in use, by streams that ended but were not read.
func (c *Conn) accept(chain *queue.Chain, n int64, payload int) bool {
	if n > int64(payload) || n > int64(c.in.free()) || c.peerShut&shutSend != 0 {
		return false
	}
	if c.shut&shutReceive != 0 {
		// Sent before the guest knew that nobody reads: dropped, and credited so
		// that a writer in the guest goes on to see the shutdown.
		c.fwd += uint32(n)
		return true
	}
	if n > 0 && !c.ring() {
		return false
	}
	off := headerLen
	for _, space := range c.in.spaces(int(n)) {
		off += chain.CopyOut(space, off)
	}
	c.cond.Broadcast()
	return true
}

// remove forgets a stream; what it buffered can still be read.
func (d *Device) remove(c *Conn, err error) {
	if d.conns[c.key] == c {
		delete(d.conns, c.key)
	}
	d.unschedule(c)
	c.fail(err)
}
