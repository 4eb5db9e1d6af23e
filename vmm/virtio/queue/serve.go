package queue

import (
	"errors"
	"time"
)

// Handler handles one chain and returns how many bytes it wrote to its writable
// part. The chain and its slices are valid until the Handler returns. Later and
// Again are the errors with a meaning; any other says that the driver broke the
// rules, and breaks the queue.
type Handler = func(*Chain) (uint32, error)

// Later says that the Handler keeps the chain: it stays valid, and outstanding,
// until Finish returns it to the driver. Finish may come from another goroutine,
// even before the Handler returns.
//
//lint:ignore ST1012 an answer, no failure
var Later = errors.New("the chain is returned later")

// Again says that the Handler left the chain alone: it is not taken from the
// driver, and Serve ends. Call Serve again when there is reason to.
//
//lint:ignore ST1012 an answer, no failure
var Again = errors.New("the chain is to be taken again")

// Bounds of a batch, which ends with an interrupt if the driver wants one. They
// keep a busy driver from waiting for its first answers: a queue's worth of
// chains, this many bytes, or this much time.
const (
	batchBytes = 256 << 10
	batchTime  = 250 * time.Microsecond
	// clockEvery is the number of chains between looks at the clock, which is
	// dear on some machines. Short batches do without.
	clockEvery = 8
)

// ending is why a batch ended.
type ending int

const (
	drained ending = iota // no chain is left
	bounded               // enough for once
	stopped               // Halt, or a Handler said Again
)

// Serve handles a batch of chains. more says that there are chains left: call
// again. interrupt says that the driver wants to hear of what was returned. When
// the queue is drained the driver is asked to notify the device of the next
// chain.
func (q *Queue) Serve(handle Handler) (more, interrupt bool, err error) {
	if q.halted.Load() {
		return false, false, nil
	}
	if err := q.mute(); err != nil {
		return false, false, err
	}
	end, err := q.batch(handle)
	if err != nil {
		return false, false, err
	}
	if interrupt, err = q.WantsInterrupt(); err != nil {
		return false, false, err
	}
	switch end {
	case stopped:
		return false, interrupt, nil
	case bounded:
		if n, err := q.ready(); err != nil || n > 0 {
			return true, interrupt, err
		}
	}
	more, err = q.Rearm()
	return more, interrupt, err
}

func (q *Queue) batch(handle Handler) (ending, error) {
	var start time.Time
	moved := 0
	for n := range int(q.size) {
		if n > 0 && n%clockEvery == 0 {
			now := time.Now()
			if start.IsZero() {
				start = now
			} else if now.Sub(start) >= batchTime {
				return bounded, nil
			}
		}
		if q.halted.Load() {
			return stopped, nil
		}
		c := q.storage()
		if ok, err := q.Pop(c); err != nil || !ok {
			return drained, err
		}
		size := c.ReadLen() + c.WriteLen() // before a Handler may give c away
		end, err := q.give(c, handle)
		if err != nil || end == stopped {
			return end, err
		}
		if moved += size; moved >= batchBytes {
			return bounded, nil
		}
	}
	return bounded, nil
}

// Pending says whether chains are available that were not taken yet. It is for
// the goroutine that serves.
func (q *Queue) Pending() bool {
	n, err := q.ready()
	return err == nil && n > 0
}

// storage is where the next chain goes.
func (q *Queue) storage() *Chain {
	if q.current == nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		if n := len(q.spare); n > 0 {
			q.current, q.spare = q.spare[n-1], q.spare[:n-1]
		} else {
			q.current = &Chain{owner: q}
		}
	}
	return q.current
}

// give hands a chain to the Handler and does what that says.
func (q *Queue) give(c *Chain, handle Handler) (ending, error) {
	c.kept = true
	written, err := handle(c)
	switch {
	case err == nil:
		c.kept = false
		return bounded, q.Push(c.Head, written)
	case errors.Is(err, Later):
		q.current = nil // c is the Handler's, or was finished and is a spare
		return bounded, nil
	case errors.Is(err, Again):
		c.kept = false
		q.nextAvail--
		return stopped, nil
	default:
		return stopped, q.breakWith(err)
	}
}

// Finish returns a chain that a Handler kept to the driver, as Push does, and
// says whether the driver wants an interrupt. The chain is invalid from then on.
// Nothing happens for a chain that this queue does not have outstanding.
func (q *Queue) Finish(c *Chain, written uint32) (interrupt bool, err error) {
	q.mu.Lock()
	if c.owner != q || !c.kept {
		q.mu.Unlock()
		return false, nil
	}
	c.kept = false
	err = q.push(c.Head, written)
	q.spare = append(q.spare, c)
	q.mu.Unlock()
	if err != nil {
		return false, err
	}
	return q.WantsInterrupt()
}

// Resume runs a Handler on a chain that one kept, and finishes it unless that
// says Later.
func (q *Queue) Resume(c *Chain, handle Handler) (interrupt bool, err error) {
	written, err := handle(c)
	switch {
	case err == nil:
		return q.Finish(c, written)
	case errors.Is(err, Later):
		return false, nil
	default:
		return false, q.breakWith(err)
	}
}

// Owns says whether c was taken from this queue by Serve.
func (q *Queue) Owns(c *Chain) bool { return c.owner == q }

// Halt makes Serve end after the chain under way, and do nothing from then on.
func (q *Queue) Halt() { q.halted.Store(true) }

// Halted says whether Halt was called.
func (q *Queue) Halted() bool { return q.halted.Load() }
