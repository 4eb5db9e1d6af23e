package balloon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// StatsSize bounds what is looked at of the guest's statistics, in bytes: 64 of
// them. §5.5.6.5 knows 10.
const StatsSize = 64 * statSize

const statSize = 10 // le16 tag, le64 value

// ErrNoStats reports a guest that gives no statistics now: no driver is up, or
// one without VIRTIO_BALLOON_F_STATS_VQ, or it was reset meanwhile.
var ErrNoStats = errors.New("the guest gives no memory statistics")

// Stats are the guest's memory statistics (§5.5.6.5), as it says. What it did
// not say is 0.
type Stats struct {
	SwapIn      uint64 // bytes swapped in
	SwapOut     uint64 // bytes swapped out
	MajorFaults uint64
	MinorFaults uint64
	Free        uint64 // bytes not used for anything
	Total       uint64 // bytes the guest has
	Available   uint64 // bytes for new programs without swapping
	Caches      uint64 // bytes of file caches
	HugeAllocs  uint64 // huge pages made
	HugeFails   uint64 // huge pages that could not be made
}

// field is where the statistic of a tag goes; nil when it is unknown.
func (s *Stats) field(tag uint16) *uint64 {
	fields := [...]*uint64{
		&s.SwapIn, &s.SwapOut, &s.MajorFaults, &s.MinorFaults, &s.Free,
		&s.Total, &s.Available, &s.Caches, &s.HugeAllocs, &s.HugeFails,
	}
	if int(tag) >= len(fields) {
		return nil
	}
	return fields[tag]
}

// parseStats reads the statistics; a piece of one at the end is ignored.
func parseStats(p []byte) Stats {
	var s Stats
	for ; len(p) >= statSize; p = p[statSize:] {
		if f := s.field(binary.LittleEndian.Uint16(p)); f != nil {
			*f = binary.LittleEndian.Uint64(p[2:])
		}
	}
	return s
}

// stats is the state of the statistics queue: the driver gives one buffer, which
// the device keeps until it wants new ones (§5.5.6.3).
type stats struct {
	held    bool // head is the driver's buffer
	head    uint16
	last    Stats
	answers uint64        // buffers that came
	changed chan struct{} // closed, and made anew, when something of the above changes
}

func (s *stats) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stats) stop() {
	s.held = false
	s.notify()
}

// takeStats takes the driver's buffer. It has one: while that is held, others
// stay where they are.
func (d *Device) takeStats() error {
	s, q := &d.stats, d.act.Queues[queueStats]
	for !s.held {
		var c queue.Chain
		if ok, err := q.PopOrRearm(&c); !ok || err != nil {
			return err
		}
		if c.WriteLen() != 0 {
			return fmt.Errorf("%w: statistics in a writable buffer of %d bytes", ErrRequest, c.WriteLen())
		}
		var raw [StatsSize]byte
		s.last = parseStats(raw[:c.CopyOut(raw[:], 0)])
		s.held, s.head = true, c.Head
		s.answers++
		s.notify()
	}
	return nil
}

// Stats asks the guest for its statistics and waits for them, or for ctx's end.
// It looks into the queue itself: Linux gives its first buffer, and notifies of
// it, before it sets DRIVER_OK.
func (d *Device) Stats(ctx context.Context) (Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, act, before := &d.stats, d.act, d.stats.answers
	for asked := false; ; {
		if act != nil && d.act == act && d.statsQueue() != nil && !s.held {
			d.check(d.takeStats())
		}
		switch {
		case d.act == nil, d.act != act, d.statsQueue() == nil:
			return Stats{}, ErrNoStats
		case asked && s.answers != before:
			return s.last, nil
		case s.held:
			asked, before = true, s.answers
			d.check(d.askStats())
			continue // the answer may be there already
		}
		changed := s.changed
		d.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		d.mu.Lock()
		if err := ctx.Err(); err != nil {
			return Stats{}, fmt.Errorf("memory statistics: %w", err)
		}
	}
}

// statsQueue is the statistics queue of the driver that is up, or nil.
func (d *Device) statsQueue() *queue.Queue {
	if d.act.Features&featureStats == 0 {
		return nil
	}
	return d.act.Queues[queueStats]
}

// askStats gives the driver its buffer back, which asks for new statistics.
func (d *Device) askStats() error {
	q := d.act.Queues[queueStats]
	d.stats.held = false
	if err := q.Push(d.stats.head, 0); err != nil {
		return err
	}
	wants, err := q.WantsInterrupt()
	if err != nil {
		return err
	}
	if wants {
		d.act.Transport.Interrupt()
	}
	return d.takeStats()
}
