package microvm

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/console"
	"github.com/duplex-run/duplex/internal/jail"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
)

// Whatever a monitor that was taken over sends, its parent takes it or not, and
// what reaches a screen of it is printable.
func FuzzNote(f *testing.F) {
	for _, n := range []note{
		{Kind: noteEvent, Value: int(vmm.Entered), Ns: 1}, {Kind: noteMark, Value: 300},
		{Kind: noteStep, Step: &workload.Step{Name: "\x1b[2J" + strings.Repeat("x", 2*maxStepName)}},
		{Kind: noteJailed, Layers: &jail.Layers{}}, {Kind: noteStats, Stats: &vmm.Stats{}}, {Kind: noteSaved}, {Kind: noteConnected},
		{Kind: noteEnded, Exit: &vmm.Exit{Detail: "\n"}, Stats: &vmm.Stats{}, Failure: &failure{Op: "\x00"}},
	} {
		data, err := json.Marshal(n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"Kind":"step"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs, err := controlPair()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ours.Close() }()
		_, _ = theirs.Write(data[:min(len(data), maxNote)]) // an empty one is not sent
		_ = theirs.Close()
		shown := func(s string) {
			if s != console.Printable(s) {
				t.Errorf("%q reaches the screen", s)
			}
		}
		rec := &workload.Recorder{}
		p := &process{o: &BootOptions{
			OnEvent: func(e vmm.Event, ns int64) { rec.StampAt(eventPhase(e), ns) },
			onMark:  func(v byte, ns int64) { rec.StampAt(markPhase(v), ns) },
			onStep:  func(s workload.Step) { shown(s.Name); rec.AddStep(s) },
			OnStats: func(vmm.Stats) {}, OnAnswer: func(vmm.Stats) {}, connected: func() {}, onSaved: func() {}, Warn: shown,
		}}
		in := &receiver{f: ours}
		for {
			n := note{}
			if in.receive(&n) != nil {
				break
			}
			p.note(n)
		}
		if p.ended != nil && p.ended.Failure != nil {
			shown(strings.Join(strings.Split(p.ended.Failure.error().Error(), ": "), ""))
		}
	})
}
