package console

import "github.com/duplex-run/duplex/vmm/virtio/queue"

// feed moves input into the buffers that the guest offers.
func (d *Device) feed() error {
	q := d.queue(queueRX)
	if q == nil {
		return nil
	}
	var c queue.Chain
	for len(d.input) > 0 {
		ok, err := q.PopOrRearm(&c)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if c.ReadLen() != 0 {
			return direction(&c)
		}
		n := c.CopyIn(d.input, 0)
		d.input = d.input[n:]
		if err := q.Push(c.Head, uint32(n)); err != nil {
			return err
		}
	}
	if len(d.input) == 0 {
		d.wake.Broadcast()
	}
	return d.notify(q)
}

// read is the goroutine that takes input from In, a buffer at a time.
func (d *Device) read() {
	buf := make([]byte, InputSize)
	for {
		n, err := d.in.Read(buf)
		d.mu.Lock()
		d.input = buf[:n]
		d.check(d.feed())
		for len(d.input) > 0 && !d.closed {
			d.wake.Wait()
		}
		closed := d.closed
		d.mu.Unlock()
		if err != nil || closed {
			return
		}
	}
}
