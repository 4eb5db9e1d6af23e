package queue

import "github.com/duplex-run/duplex/vmm/memory"

// Stage writes a used element as Push does but leaves the used index: the driver
// sees the element together with that of the next Push. A packet that fills
// several buffers has to appear all at once, as drivers do not wait for its rest
// (§5.1.6.4).
func (q *Queue) Stage(head uint16, written uint32) error {
	if q.err != nil {
		return q.err
	}
	elem := q.used + 4 + 8*memory.GPA(q.nextUsed%q.size)
	if err := q.mem.PutUint32(elem, uint32(head)); err != nil {
		return q.fail("push", err)
	}
	if err := q.mem.PutUint32(elem+4, written); err != nil {
		return q.fail("push", err)
	}
	q.nextUsed++
	return nil
}
