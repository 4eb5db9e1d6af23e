package trace

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
)

// chromeEvent is one entry of Chrome's trace event format, which Perfetto reads:
// "X" is a span, "i" an instant, "M" a name. Times are in microseconds.
type chromeEvent struct {
	Name  string         `json:"name"`
	Phase string         `json:"ph"`
	Time  float64        `json:"ts"`
	Dur   float64        `json:"dur,omitempty"`
	PID   int            `json:"pid"`
	TID   int            `json:"tid"`
	Scope string         `json:"s,omitempty"`
	Args  map[string]any `json:"args,omitempty"`
}

// Span is something that took time beside the exits, for WritePerfetto.
type Span struct {
	Track string // spans of one track lie inside one another, or do not touch
	Name  string
	// Start and End are nanoseconds since Header.Start; Start may be negative.
	Start, End int64
	Args       map[string]any
}

// WritePerfetto converts a trace to Chrome's trace event format: a track a vCPU,
// a span for each exit, an instant for each step; and more spans on tracks of
// their own. Time 0 is the earliest of them all.
func WritePerfetto(out io.Writer, in io.Reader, more ...Span) error {
	r, err := NewReader(in)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	_, _ = w.WriteString("{\"traceEvents\":[\n") // Flush reports
	if err := enc.Encode(chromeEvent{Name: "process_name", Phase: "M", PID: 1, Args: map[string]any{"name": "microVM"}}); err != nil {
		return err
	}
	zero, events := spans(more)
	for _, e := range events {
		_ = w.WriteByte(',')
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	a := adder{h: &r.Header}
	var rec Record
	for {
		err := r.Next(&rec)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		_ = w.WriteByte(',')
		e := a.chrome(&rec)
		e.Time -= float64(zero) / 1e3
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	_, _ = w.WriteString("],\"displayTimeUnit\":\"ns\"}\n")
	return w.Flush()
}

// firstTrack is the thread id of the first track that is no vCPU's.
const firstTrack = 1000

// spans turns spans into events, the tracks in the order they first come, and
// returns the time that all events count from.
func spans(list []Span) (zero int64, events []chromeEvent) {
	for _, s := range list {
		zero = min(zero, s.Start)
	}
	tracks := map[string]int{}
	for _, s := range list {
		id, ok := tracks[s.Track]
		if !ok {
			id = firstTrack + len(tracks)
			tracks[s.Track] = id
			events = append(events,
				chromeEvent{Name: "thread_name", Phase: "M", PID: 1, TID: id, Args: map[string]any{"name": s.Track}},
				chromeEvent{Name: "thread_sort_index", Phase: "M", PID: 1, TID: id, Args: map[string]any{"sort_index": id - 2*firstTrack}})
		}
		events = append(events, chromeEvent{
			Name: s.Name, Phase: "X", PID: 1, TID: id, Args: s.Args,
			Time: float64(s.Start-zero) / 1e3, Dur: float64(max(0, s.End-s.Start)) / 1e3,
		})
	}
	return zero, events
}

func (a *adder) chrome(r *Record) chromeEvent {
	e := chromeEvent{Phase: "X", Time: float64(r.Time) / 1e3, Dur: float64(r.Host) / 1e3, PID: 1, TID: int(r.VCPU) + 1}
	switch r.Kind {
	case Mark, Event:
		e.Name, e.Phase, e.Dur, e.Scope = a.h.step(r), "i", 0, "g"
	case Dropped:
		e.Name, e.Phase, e.Dur, e.Scope = "file full", "i", 0, "g"
		e.Args = map[string]any{"records": r.Addr}
	default:
		e.Name = a.what(r)
		if r.Write {
			e.Args = map[string]any{"value": r.Value}
		}
	}
	return e
}
