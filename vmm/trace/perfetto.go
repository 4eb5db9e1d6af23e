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

// WritePerfetto converts a trace to Chrome's trace event format: a track a vCPU,
// a span for each exit, an instant for each step.
func WritePerfetto(out io.Writer, in io.Reader) error {
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
		if err := enc.Encode(a.chrome(&rec)); err != nil {
			return err
		}
	}
	_, _ = w.WriteString("],\"displayTimeUnit\":\"ns\"}\n")
	return w.Flush()
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
