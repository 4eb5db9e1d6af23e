package queue

import "github.com/duplex-run/duplex/vmm/memory"

// State is where a device is in a queue: the indices that §2.7 leaves to it.
type State struct {
	NextAvail uint16 // of the next avail entry to take
	NextUsed  uint16 // of the next used entry to publish
	Signalled uint16 // NextUsed when the driver was last interrupted, or not
	Muted     bool   // the used ring's flags ask for no notifications
}

// State returns the queue's state. Precondition: nobody uses the queue, and it is
// not broken.
func (q *Queue) State() State {
	q.mu.Lock()
	defer q.mu.Unlock()
	return State{NextAvail: q.nextAvail, NextUsed: uint16(q.nextUsed.Load()), Signalled: q.signalled, Muted: q.muted}
}

// Restore is New for a queue that was in use. What s says is the device's own
// doing: indices that no device leaves are refused with ErrState.
func Restore(mem *memory.Memory, l Layout, max uint16, features uint64, s State) (*Queue, error) {
	q, err := New(mem, l, max, features)
	if err != nil {
		return nil, err
	}
	if s.NextAvail-s.NextUsed > q.size {
		return nil, &Error{"restore", -1, ErrState}
	}
	q.nextAvail, q.signalled, q.muted = s.NextAvail, s.Signalled, s.Muted
	q.nextUsed.Store(uint32(s.NextUsed))
	return q, nil
}

// Outstanding is the number of chains that were taken and not returned. It is for
// whoever keeps others from taking more.
func (q *Queue) Outstanding() int { return int(q.nextAvail - uint16(q.nextUsed.Load())) }

// Broken says whether the driver has broken the queue.
func (q *Queue) Broken() bool { return q.failed() != nil }
