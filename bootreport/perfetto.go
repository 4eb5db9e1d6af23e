package bootreport

import (
	"fmt"
	"io"
	"os"

	"github.com/duplex-run/duplex/vmm/trace"
)

// WritePerfetto writes the waterfall and the trace it was made from, with every
// exit, in Chrome's trace event format.
func WritePerfetto(out io.Writer, d *Document, tracePath string) error {
	in, err := os.Open(tracePath)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	r, err := trace.NewReader(in)
	if err != nil {
		return err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read the boot's trace: %w", err)
	}
	exec := d.ExecAt - r.Header.Start
	spans := make([]trace.Span, 0, len(d.Spans))
	for _, s := range d.Spans {
		track := "phases"
		args := map[string]any{"clock": s.Clock}
		if s.Clock == GuestClock {
			track = "guest kernel (its log, placed)"
		} else if s.Depth > 0 {
			track = "steps"
		}
		if s.Faults != nil {
			args["page faults"] = s.Faults.Minor + s.Faults.Major
		}
		spans = append(spans, trace.Span{Track: track, Name: s.Name, Start: exec + s.StartNs, End: exec + s.EndNs, Args: args})
	}
	return trace.WritePerfetto(out, in, spans...)
}
