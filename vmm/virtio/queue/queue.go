package queue

import (
	"sync"
	"sync/atomic"

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
const (
	availNoInterrupt = 1
	usedNoNotify     = 1
)

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

	err    atomic.Pointer[error] // first violation: the queue is broken
	halted atomic.Bool           // Halt was called

	// The avail side: of the goroutine that serves.
	nextAvail uint16 // index of the next avail entry to take
	muted     bool   // the used ring's flags say usedNoNotify
	current   *Chain // storage for the next chain that Serve takes

	// The used side: of any goroutine.
	mu        sync.Mutex
	nextUsed  atomic.Uint32 // index of the next used entry to publish; 16 bits
	signalled uint16        // nextUsed when WantsInterrupt last looked
	spare     []*Chain      // storage that Finish gave back
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
	ready, err := q.ready()
	if err != nil || ready == 0 {
		return false, err
	}
	if q.nextAvail-uint16(q.nextUsed.Load()) >= q.size {
		return false, q.fail("pop", -1, ErrInUse)
	}
	slot := memory.GPA(q.nextAvail % q.size)
	head, err := q.mem.Uint16(q.avail + 4 + 2*slot)
	if err != nil {
		return false, q.fail("pop", -1, err)
	}
	if i, err := q.walk(c, head); err != nil {
		return false, q.fail("pop", int(i), err)
	}
	q.nextAvail++
	return true, nil
}

// PopOrRearm is Pop for devices that come back to a queue when the driver says
// that it has more: where there is no chain, Rearm has asked it to say so.
func (q *Queue) PopOrRearm(c *Chain) (bool, error) {
	for {
		if ok, err := q.Pop(c); ok || err != nil {
			return ok, err
		}
		if more, err := q.Rearm(); !more || err != nil {
			return false, err
		}
	}
}

// Push returns the chain with this head to the driver; written is the number
// of bytes the device wrote to its writable part. Each chain that Pop took is
// pushed once.
func (q *Queue) Push(head uint16, written uint32) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.push(head, written)
}

// push is Push. Precondition: q.mu is held.
func (q *Queue) push(head uint16, written uint32) error {
	used, err := q.stage(head, written)
	if err != nil {
		return err
	}
	// The store publishes the element: it is ordered after the writes above and
	// before the read of used_event in WantsInterrupt (§2.7.13.4.1).
	if err := q.mem.StoreUint16(q.used+2, used); err != nil {
		return q.fail("push", -1, err)
	}
	return nil
}

// WantsInterrupt says whether the driver wants a used buffer notification for
// what was pushed since the last call (§2.7.7, §2.7.10).
func (q *Queue) WantsInterrupt() (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.failed(); err != nil {
		return false, err
	}
	before, used := q.signalled, uint16(q.nextUsed.Load())
	if used == before {
		return false, nil
	}
	q.signalled = used
	if !q.eventIdx {
		flags, err := q.mem.LoadUint16(q.avail)
		if err != nil {
			return false, q.fail("push", -1, err)
		}
		return flags&availNoInterrupt == 0, nil
	}
	event, err := q.mem.LoadUint16(q.avail + 4 + 2*memory.GPA(q.size))
	if err != nil {
		return false, q.fail("push", -1, err)
	}
	return used-event-1 < used-before, nil
}

// Rearm asks the driver to notify the device of the next chain it makes
// available (§2.7.10) and returns true when there is one already, in which case
// that notification may never come.
func (q *Queue) Rearm() (bool, error) {
	if err := q.failed(); err != nil {
		return false, err
	}
	var err error
	switch {
	case q.eventIdx:
		err = q.mem.StoreUint16(q.used+4+8*memory.GPA(q.size), q.nextAvail)
	case q.muted:
		err = q.mem.StoreUint16(q.used, 0)
	}
	if err != nil {
		return false, q.fail("rearm", -1, err)
	}
	q.muted = false
	n, err := q.ready()
	return n > 0, err
}

// mute asks the driver for no notifications until Rearm. With EVENT_IDX there
// is nothing to do: the device was notified of the chain at avail_event, and
// the driver notifies it of no other until Rearm moves avail_event on.
func (q *Queue) mute() error {
	if q.eventIdx || q.muted {
		return q.failed()
	}
	if err := q.mem.StoreUint16(q.used, usedNoNotify); err != nil {
		return q.fail("rearm", -1, err)
	}
	q.muted = true
	return q.failed()
}

// ready is the number of chains the driver made available and Pop did not take.
func (q *Queue) ready() (uint16, error) {
	if err := q.failed(); err != nil {
		return 0, err
	}
	idx, err := q.mem.LoadUint16(q.avail + 2)
	if err != nil {
		return 0, q.fail("pop", -1, err)
	}
	n := idx - q.nextAvail
	if n > q.size {
		return 0, q.fail("pop", -1, ErrAvail)
	}
	return n, nil
}

// failed is the violation that broke the queue, or nil.
func (q *Queue) failed() error {
	if p := q.err.Load(); p != nil {
		return *p
	}
	return nil
}

func (q *Queue) fail(op string, desc int, cause error) error {
	return q.breakWith(&Error{op, desc, cause})
}

// breakWith breaks the queue; the first error stays.
func (q *Queue) breakWith(err error) error {
	q.err.CompareAndSwap(nil, &err)
	return q.failed()
}
