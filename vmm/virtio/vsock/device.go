package vsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

const (
	// BufferSize bounds what a stream buffers from the guest, in bytes.
	BufferSize = 256 << 10
	// MaxConns bounds the streams at one moment; further ones are refused.
	MaxConns = 256
	// Backlog bounds the streams of a Listener that nobody accepted yet.
	Backlog = 64

	queueSize  = 128
	maxReplies = 64 // resets for streams that do not exist
)

// The virtqueues (§5.10.2).
const (
	queueRX = 0 // to the guest
	queueTX = 1 // from the guest
)

// ErrPacket reports a packet or a receive buffer too short for a header.
var ErrPacket = errors.New("malformed socket packet")

// key identifies a stream: the guest has one CID and so has the host.
type key struct{ host, guest uint32 }

// Device is the socket device; it implements virtio.Device. All methods may be
// called from several goroutines.
type Device struct {
	cid uint64

	mu        sync.Mutex
	act       *virtio.Activation
	closed    bool
	listeners map[uint32]*Listener
	anyPort   *Listener // takes streams to ports without a listener; or nil
	conns     map[key]*Conn
	replies   []header // resets to send, at most maxReplies
	ready     []*Conn  // have something to send, each once
	dialed    uint32   // counts the ports that Dial took
	shuts     uint32   // counts the streams closed here
	resetDue  bool     // the guest is to be told of a TransportReset
	rings     int      // streams that have a buffer, at most MaxConns

	txChain, rxChain queue.Chain // in use while mu is held; kept for their storage
}

// New makes a device that tells the guest its CID, which must be 3 to 2^32-2
// (§5.10.4: the others are reserved).
func New(cid uint64) (*Device, error) {
	if cid <= HostCID || cid >= 1<<32-1 {
		return nil, fmt.Errorf("vsock: CID %d is reserved", cid)
	}
	return &Device{cid: cid, listeners: map[uint32]*Listener{}, conns: map[key]*Conn{}}, nil
}

// Type implements virtio.Device.
func (d *Device) Type() uint32 { return virtio.TypeVsock }

// Features implements virtio.Device. Streams are what a driver may assume when
// no feature is offered (§5.10.3).
func (d *Device) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device: receive, transmit, event.
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize, queueSize, 8} }

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(offset uint64, p []byte) {
	virtio.ReadConfigSpace(binary.LittleEndian.AppendUint64(nil, d.cid), offset, p)
}

// WriteConfig implements virtio.Device; nothing is writable.
func (d *Device) WriteConfig(uint64, []byte) {}

// Activate implements virtio.Device. Without both data queues nothing can work.
func (d *Device) Activate(a virtio.Activation) error {
	if a.Queues[queueRX] == nil || a.Queues[queueTX] == nil {
		return errors.New("vsock: driver set up no receive or transmit queue")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return net.ErrClosed
	}
	d.act = &a
	return nil
}

// Kick implements virtio.Device.
func (d *Device) Kick(q int) {
	switch q {
	case queueRX, queueTX: // new receive buffers may let a stalled transmit go on
		for d.serve() {
		}
	case queueEvent:
		d.mu.Lock()
		defer d.mu.Unlock()
		d.check(d.sendEvent())
	}
}

// Reset implements virtio.Device: all streams are reset, listeners stay.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop(syscall.ECONNRESET)
}

// Close implements virtio.Device: all streams and listeners are closed.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.stop(net.ErrClosed)
	for _, l := range d.listeners {
		l.closeLocked()
	}
	if d.anyPort != nil {
		d.anyPort.closeLocked()
	}
	return nil
}

// stop forgets the guest; its streams fail with err.
func (d *Device) stop(err error) {
	d.act = nil
	d.replies, d.ready, d.resetDue = nil, nil, false
	for _, c := range d.conns {
		c.fail(err)
	}
	clear(d.conns)
}

// serve works through one queue's worth of packets from the guest and sends
// what became due; it says whether there may be more.
func (d *Device) serve() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.act == nil {
		return false
	}
	more, err := d.receive()
	if err == nil {
		err = d.send()
	}
	d.check(err)
	return err == nil && more && len(d.replies) < maxReplies
}

// flush sends what became due on the host's side.
func (d *Device) flush() {
	if d.act == nil {
		return
	}
	d.check(d.send())
}

// receive takes packets from the guest, one queue's worth at most.
func (d *Device) receive() (more bool, err error) {
	q := d.act.Queues[queueTX]
	c := &d.txChain
	for range q.Size() {
		if len(d.replies) >= maxReplies {
			break // until the guest gives us room to answer
		}
		ok, err := q.Pop(c)
		if err != nil {
			return false, err
		}
		if !ok {
			break
		}
		if err := d.packet(c); err != nil {
			return false, err
		}
		if err := q.Push(c.Head, 0); err != nil {
			return false, err
		}
	}
	if err := d.interrupt(q); err != nil {
		return false, err
	}
	return q.Rearm()
}

func (d *Device) interrupt(q *queue.Queue) error {
	wants, err := q.WantsInterrupt()
	if wants {
		d.act.Transport.Interrupt()
	}
	return err
}
