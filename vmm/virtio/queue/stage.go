package queue

import "github.com/duplex-run/duplex/vmm/memory"

// Stage writes a used element as Push does but leaves the used index: the driver
// sees the element together with that of the next Push. A packet that fills
// several buffers has to appear all at once, as drivers do not wait for its rest
// (§5.1.6.4).
func (q *Queue) Stage(head uint16, written uint32) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, err := q.stage(head, written)
	return err
}

// stage is Stage, and returns the used index that publishes the element.
// Precondition: q.mu is held.
func (q *Queue) stage(head uint16, written uint32) (uint16, error) {
	if err := q.failed(); err != nil {
		return 0, err
	}
	used := uint16(q.nextUsed.Load())
	elem := q.used + 4 + 8*memory.GPA(used%q.size)
	if err := q.mem.PutUint64(elem, uint64(written)<<32|uint64(head)); err != nil {
		return 0, q.fail("push", -1, err)
	}
	used++
	q.nextUsed.Store(uint32(used))
	return used, nil
}
