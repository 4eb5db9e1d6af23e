package vsock

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// queueEvent carries events to the guest (§5.10.2).
const queueEvent = 2

// eventTransportReset is VIRTIO_VSOCK_EVENT_TRANSPORT_RESET (§5.10.6.7).
const eventTransportReset = 0

// TransportReset ends all streams, on both sides: the guest is told by an event,
// as after it was moved or restored, and its listeners stay. Without a driver,
// or before it gave a buffer for events, the guest is told when it has.
func (d *Device) TransportReset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.act == nil {
		return // a driver that comes up knows of no stream
	}
	act := d.act
	d.stop(syscall.ECONNRESET)
	d.act, d.resetDue = act, true
	d.check(d.sendEvent())
}

// check stops the device after a violation by the driver.
func (d *Device) check(err error) {
	if err != nil {
		d.act.Transport.Broken(err)
		d.stop(syscall.ECONNRESET)
	}
}

// sendEvent tells the guest of a transport reset, if one is due and the guest
// has a buffer for it.
func (d *Device) sendEvent() error {
	if d.act == nil || !d.resetDue || d.act.Queues[queueEvent] == nil {
		return nil
	}
	q, c := d.act.Queues[queueEvent], &d.rxChain
	if ok, err := q.PopOrRearm(c); !ok || err != nil {
		return err
	}
	var event [4]byte
	binary.LittleEndian.PutUint32(event[:], eventTransportReset)
	if c.CopyIn(event[:], 0) < len(event) {
		return fmt.Errorf("%w: event buffer of %d bytes", ErrPacket, c.WriteLen())
	}
	d.resetDue = false
	if err := q.Push(c.Head, uint32(len(event))); err != nil {
		return err
	}
	return d.interrupt(q)
}
