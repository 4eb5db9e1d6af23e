package console

// drain moves what the guest prints to the output buffer, while there is room:
// what does not fit stays in the guest's own buffers. So it takes BufferSize
// bytes at most, however fast the guest makes more.
func (d *Device) drain() error {
	q := d.queue(queueTX)
	if q == nil {
		return nil
	}
	for len(d.output) < BufferSize {
		if !d.txHeld {
			ok, err := q.PopOrRearm(&d.tx)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if d.tx.WriteLen() != 0 {
				return direction(&d.tx)
			}
			d.txHeld, d.txDone = true, 0
		}
		have := len(d.output)
		n := d.tx.CopyOut(d.output[have:BufferSize], d.txDone)
		d.output = d.output[:have+n]
		d.txDone += n
		if d.txDone < d.tx.ReadLen() {
			break // the buffer is full: the chain goes back when all of it is here
		}
		d.txHeld = false
		if err := q.Push(d.tx.Head, 0); err != nil {
			return err
		}
	}
	if len(d.output) > 0 {
		d.wake.Broadcast()
	}
	return d.notify(q)
}

// write is the goroutine that gives the output to Out.
func (d *Device) write() {
	defer close(d.written)
	spare := make([]byte, 0, BufferSize)
	failed := false
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		for len(d.output) == 0 {
			if d.closed {
				return
			}
			d.wake.Wait()
		}
		full := d.output
		d.output = spare[:0]
		d.check(d.drain()) // there is room again
		d.mu.Unlock()
		if !failed {
			_, err := d.out.Write(full)
			failed = err != nil
		}
		spare = full
		d.mu.Lock()
	}
}
