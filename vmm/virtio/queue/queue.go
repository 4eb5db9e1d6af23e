package queue

import (
	"github.com/duplex-run/duplex/vmm/memory"
)

// MaxSize is the largest split virtqueue (§2.7).
const MaxSize = 32768

// Feature bits that change how a queue works (§6).
const (
	FeatureIndirect = 1 << 28 // VIRTIO_F_INDIRECT_DESC
	FeatureEventIdx = 1 << 29 // VIRTIO_F_EVENT_IDX
)

// Ring flags (§2.7.6, §2.7.8).
const availNoInterrupt = 1

// Layout is what the driver tells of a queue before it makes it ready.
type Layout struct {
	Size              uint32 // entries: a power of two up to MaxSize
	Desc, Avail, Used memory.GPA
}

// Queue is one split virtqueue in use.
type Queue struct {
	mem               *memory.Memory
	size              uint16
	desc, avail, used memory.GPA
	indirect          bool
	eventIdx          bool

	nextAvail uint16 // index of the next avail entry to take
	nextUsed  uint16 // index of the next used entry to publish
	signalled uint16 // nextUsed when wantsInterrupt last looked
	err       error  // first violation: the queue is broken
}

// New checks the layout against §2.7 and returns the queue. max is the size
// limit of the device for this queue, features the negotiated feature bits.
func New(mem *memory.Memory, l Layout, max uint16, features uint64) (*Queue, error) {
	if l.Size == 0 || l.Size&(l.Size-1) != 0 || l.Size > uint32(max) || l.Size > MaxSize {
		return nil, &Error{"set up", -1, ErrSize}
	}
	if l.Desc%16 != 0 || l.Avail%2 != 0 || l.Used%4 != 0 {
		return nil, &Error{"set up", -1, ErrAlign}
	}
	n := uint64(l.Size)
	areas := []struct {
		base memory.GPA
		len  uint64
	}{
		{l.Desc, descSize * n},
		{l.Avail, 6 + 2*n}, // flags, idx, ring, used_event
		{l.Used, 6 + 8*n},  // flags, idx, ring, avail_event
	}
	for _, a := range areas {
		if _, err := mem.Slice(a.base, a.len); err != nil {
			return nil, &Error{"set up", -1, err}
		}
	}
	return &Queue{
		mem: mem, size: uint16(l.Size), desc: l.Desc, avail: l.Avail, used: l.Used,
		indirect: features&FeatureIndirect != 0,
		eventIdx: features&FeatureEventIdx != 0,
	}, nil
}

// Size is the number of entries.
func (q *Queue) Size() int { return int(q.size) }

// Pop takes the next available chain into c, whose storage is reused. It
// returns false when there is none. An error is an *Error and final.
func (q *Queue) Pop(c *Chain) (bool, error) {
	if q.err != nil {
		return false, q.err
	}
	ready, err := q.ready()
	if err != nil || ready == 0 {
		return false, err
	}
	slot := memory.GPA(q.nextAvail % q.size)
	head, err := q.mem.Uint16(q.avail + 4 + 2*slot)
	if err != nil {
		return false, q.fail("pop", err)
	}
	if err := q.walk(c, head); err != nil {
		q.err = err
		return false, err
	}
	q.nextAvail++
	return true, nil
}

// Push returns the chain with this head to the driver; written is the number
// of bytes the device wrote to its writable part. Heads are pushed once each.
func (q *Queue) Push(head uint16, written uint32) error {
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
	// The store publishes the element: it is ordered after the writes above and
	// before the read of used_event in WantsInterrupt (§2.7.13.4.1).
	if err := q.mem.StoreUint16(q.used+2, q.nextUsed); err != nil {
		return q.fail("push", err)
	}
	return nil
}

// WantsInterrupt says whether the driver wants a used buffer notification for
// what was pushed since the last call (§2.7.7, §2.7.10).
func (q *Queue) WantsInterrupt() (bool, error) {
	if q.err != nil {
		return false, q.err
	}
	before := q.signalled
	if q.nextUsed == before {
		return false, nil
	}
	q.signalled = q.nextUsed
	if !q.eventIdx {
		flags, err := q.mem.LoadUint16(q.avail)
		if err != nil {
			return false, q.fail("push", err)
		}
		return flags&availNoInterrupt == 0, nil
	}
	event, err := q.mem.LoadUint16(q.avail + 4 + 2*memory.GPA(q.size))
	if err != nil {
		return false, q.fail("push", err)
	}
	return q.nextUsed-event-1 < q.nextUsed-before, nil
}

// Rearm asks the driver to notify the device of the next chain it makes
// available (§2.7.10) and returns true when there is one already, in which case
// that notification may never come.
func (q *Queue) Rearm() (bool, error) {
	if q.err != nil {
		return false, q.err
	}
	if q.eventIdx {
		event := q.used + 4 + 8*memory.GPA(q.size)
		if err := q.mem.StoreUint16(event, q.nextAvail); err != nil {
			return false, q.fail("rearm", err)
		}
	}
	n, err := q.ready()
	return n > 0, err
}

// Serve takes up to one queue's worth of chains, gives each to handle and
// returns it with the number of bytes handle wrote. more says that chains are
// left: call again, perhaps after letting others have the lock. interrupt says
// that the driver wants to hear of it. An error from handle breaks the queue.
func (q *Queue) Serve(handle func(*Chain) (uint32, error)) (more, interrupt bool, err error) {
	var c Chain
	for range q.size {
		ok, err := q.Pop(&c)
		if err != nil {
			return false, false, err
		}
		if !ok {
			break
		}
		written, err := handle(&c)
		if err != nil {
			q.err = err
			return false, false, err
		}
		if err := q.Push(c.Head, written); err != nil {
			return false, false, err
		}
	}
	if interrupt, err = q.WantsInterrupt(); err != nil {
		return false, false, err
	}
	more, err = q.Rearm()
	return more, interrupt, err
}

// ready is the number of chains the driver made available and Pop did not take.
func (q *Queue) ready() (uint16, error) {
	idx, err := q.mem.LoadUint16(q.avail + 2)
	if err != nil {
		return 0, q.fail("pop", err)
	}
	n := idx - q.nextAvail
	if n > q.size {
		return 0, q.fail("pop", ErrAvail)
	}
	return n, nil
}

func (q *Queue) fail(op string, err error) error {
	q.err = &Error{op, -1, err}
	return q.err
}
