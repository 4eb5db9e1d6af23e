package bootreport

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/duplex-run/duplex/vmm/trace"
)

// maxDevices bounds the names that exits are counted under. A header has few, but
// reasons are told apart too.
const maxDevices = 256

// countExits reads a trace and adds its exits to the spans of the host's clock, and
// by device. begin is the time of exec, as Header.Start; exits at end or later are
// left out. Spans of one depth do not overlap.
func countExits(in io.Reader, begin, end int64, spans []Span) ([]Exits, error) {
	r, err := trace.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("read the boot's trace: %w", err)
	}
	levels := byDepth(spans)
	devices := map[string]*Exits{}
	var rec trace.Record
	for {
		err := r.Next(&rec)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the boot's trace: %w", err)
		}
		at := r.Header.Start + int64(min(rec.Time, 1<<62)) - begin
		if rec.Kind == trace.Mark || rec.Kind == trace.Event || rec.Kind == trace.Dropped || at < 0 || at >= end {
			continue
		}
		for _, level := range levels {
			if s := find(level, at); s != nil {
				s.Exits++
				s.ExitNs += uint64(rec.Host)
			}
		}
		count(devices, &r.Header, &rec)
	}
	out := make([]Exits, 0, len(devices))
	for _, d := range devices {
		out = append(out, *d)
	}
	slices.SortFunc(out, func(a, b Exits) int {
		return cmp.Or(cmp.Compare(b.HostNs, a.HostNs), cmp.Compare(b.Exits, a.Exits), cmp.Compare(a.Device, b.Device))
	})
	return out, nil
}

func count(devices map[string]*Exits, h *trace.Header, rec *trace.Record) {
	name := h.Device(rec)
	if name == "" {
		name = h.Reason(rec) + ", no device"
	}
	if devices[name] == nil && len(devices) >= maxDevices {
		name = "others"
	}
	d := devices[name]
	if d == nil {
		d = &Exits{Device: name}
		devices[name] = d
	}
	d.Exits++
	d.HostNs += uint64(rec.Host)
	if rec.Write {
		d.Writes++
	}
}

// byDepth returns the spans of the host's clock by depth, each in order.
func byDepth(spans []Span) [][]*Span {
	var levels [][]*Span
	for i := range spans {
		s := &spans[i]
		if s.Clock != HostClock {
			continue
		}
		for len(levels) <= s.Depth {
			levels = append(levels, nil)
		}
		levels[s.Depth] = append(levels[s.Depth], s)
	}
	for _, level := range levels {
		slices.SortFunc(level, func(a, b *Span) int { return cmp.Compare(a.StartNs, b.StartNs) })
	}
	return levels
}

// find returns the span that holds at, or nil.
func find(level []*Span, at int64) *Span {
	i, ok := slices.BinarySearchFunc(level, at, func(s *Span, at int64) int { return cmp.Compare(s.StartNs, at) })
	if !ok {
		i--
	}
	// Of those that begin at the same time only the last is not empty.
	for i+1 < len(level) && level[i+1].StartNs == at {
		i++
	}
	if i < 0 || at >= level[i].EndNs {
		return nil
	}
	return level[i]
}
