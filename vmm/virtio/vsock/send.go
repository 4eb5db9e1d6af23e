package vsock

import (
	"fmt"
	"slices"
)

// schedule queues c to send what it has, if anything.
func (d *Device) schedule(c *Conn) {
	if !c.queued && c.err == nil && c.due() {
		c.queued = true
		d.ready = append(d.ready, c)
	}
}

// unschedule takes c out of the queue of streams that have something to send.
func (d *Device) unschedule(c *Conn) {
	if i := slices.Index(d.ready, c); i >= 0 {
		d.ready = slices.Delete(d.ready, i, i+1) // keeps the storage
	}
	c.queued = false
}

// send fills the guest's receive buffers with what is due: answers for streams
// that do not exist first, then one packet a stream in turn.
func (d *Device) send() error {
	q := d.act.Queues[queueRX]
	chain := &d.rxChain
	for {
		c, h, data := d.next()
		if c == nil && h.op == 0 {
			break
		}
		ok, err := q.PopOrRearm(chain)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if chain.WriteLen() <= headerLen {
			return fmt.Errorf("%w: receive buffer of %d bytes", ErrPacket, chain.WriteLen())
		}
		data = data[:min(len(data), chain.WriteLen()-headerLen)]
		d.sent(c, h, len(data))
		if c != nil {
			h.bufAlloc, h.fwdCnt = BufferSize, c.fwd
		}
		h.len = uint32(len(data))
		raw := h.encode()
		chain.CopyIn(raw[:], 0)
		chain.CopyIn(data, headerLen)
		if err := q.Push(chain.Head, headerLen+h.len); err != nil {
			return err
		}
	}
	return d.interrupt(q)
}

// next is the packet to send next: its stream (nil for an answer without one),
// header and data. A header of operation 0 and no stream means nothing is due.
func (d *Device) next() (*Conn, header, []byte) {
	if len(d.replies) > 0 {
		return nil, d.replies[0], nil
	}
	for len(d.ready) > 0 {
		c := d.ready[0]
		if c.err == nil && c.due() {
			h, data := c.nextPacket()
			return c, h, data
		}
		d.unschedule(c)
	}
	return nil, header{}, nil
}

// sent notes that the packet from next goes out with n bytes of data, and puts
// its stream at the end of the line.
func (d *Device) sent(c *Conn, h header, n int) {
	if c == nil {
		d.replies = slices.Delete(d.replies, 0, 1)
		return
	}
	c.packetSent(h, n)
	d.unschedule(c)
	d.schedule(c)
}

// credit is how many bytes the guest has room for (§5.10.6.3).
func (c *Conn) credit() uint32 {
	room := min(c.peerAlloc, maxInFlight)
	inFlight := c.sentCnt - c.peerFwd // modulo 2^32, as the counters are
	if inFlight >= room {
		return 0
	}
	return room - inFlight
}

// due says whether the stream has a packet that can go now.
func (c *Conn) due() bool {
	return c.request || c.respond || c.tellCredit || (len(c.out) > 0 && c.credit() > 0) ||
		(len(c.out) == 0 && c.shut&^c.shutSent != 0)
}

// nextPacket is the packet to send next. Precondition: due.
func (c *Conn) nextPacket() (header, []byte) {
	h := c.header(0)
	switch {
	case c.request:
		h.op = opRequest
	case c.respond:
		h.op = opResponse
	case len(c.out) > 0 && c.credit() > 0:
		h.op = opRW
		return h, c.out[:min(uint32(min(len(c.out), maxPayload)), c.credit())]
	case c.tellCredit:
		h.op = opCreditUpdate
	default:
		h.op, h.flags = opShutdown, c.shut
	}
	return h, nil
}

// header is that of a packet to the guest's end of the stream.
func (c *Conn) header(op uint16) header {
	return header{
		srcCID: HostCID, dstCID: c.dev.cid, srcPort: c.key.host, dstPort: c.key.guest, kind: typeStream, op: op,
	}
}

const (
	// maxPayload bounds the data of one packet, in bytes.
	maxPayload = 64 << 10
	// maxInFlight bounds the bytes that a stream may have on the way, whatever
	// room the guest claims to have: the device is locked while it copies them.
	maxInFlight = 1 << 20
)

// packetSent notes what a packet from nextPacket with n bytes of data did.
func (c *Conn) packetSent(h header, n int) {
	c.toldFwd = c.fwd // every packet carries the credit
	c.tellCredit = false
	switch h.op {
	case opRequest:
		c.request = false
	case opResponse:
		c.respond = false
	case opRW:
		c.out = c.out[n:]
		c.sentCnt += uint32(n)
		if len(c.out) == 0 {
			c.cond.Broadcast()
		}
	case opShutdown:
		c.shutSent = h.flags
		if h.flags == shutBoth {
			c.dev.shuts++
			c.shutOrder = c.dev.shuts
		}
	}
}
