package vmmbench

import (
	"fmt"
	"strconv"
	"strings"
)

// LineMark starts every line of the guest program on the serial port, which the
// guest's kernel writes to as well.
const LineMark = "@bench "

// Step is what a Line tells.
type Step string

// The steps of a guest.
const (
	Begin   Step = "begin"   // a benchmark is about to run; the guest waits Settle
	End     Step = "end"     // it has ended, with a Measure; the guest waits Settle
	Failed  Step = "failed"  // it failed, Text says why
	Version Step = "version" // Text is the guest's kernel
	Done    Step = "done"    // the guest has nothing more to do and powers off
)

// Measure is the outcome of one benchmark.
type Measure struct {
	Ops   int64 `json:"ops"`   // requests, round trips or files
	Bytes int64 `json:"bytes"` // moved
	Ns    int64 `json:"ns"`    // nanoseconds of the guest's CLOCK_MONOTONIC
}

// Line is one line of a guest's serial output.
type Line struct {
	Step Step
	Name string // of the benchmark, for Begin, End and Failed
	Measure
	Text string
}

// String is the line without its newline.
func (l Line) String() string {
	switch l.Step {
	case Begin:
		return fmt.Sprintf("%s%s %s", LineMark, l.Step, l.Name)
	case End:
		return fmt.Sprintf("%s%s %s %d %d %d", LineMark, l.Step, l.Name, l.Ops, l.Bytes, l.Ns)
	case Failed:
		return fmt.Sprintf("%s%s %s %s", LineMark, l.Step, l.Name, strings.ReplaceAll(l.Text, "\n", " "))
	}
	return strings.TrimSpace(fmt.Sprintf("%s%s %s", LineMark, l.Step, l.Text))
}

// ParseLine reads a line of serial output. ok is false for what is not a Line:
// the kernel's own messages, which may even stand before one.
func ParseLine(s string) (l Line, ok bool) {
	_, s, ok = strings.Cut(strings.TrimRight(s, "\r\n"), LineMark)
	if !ok {
		return Line{}, false
	}
	step, rest, _ := strings.Cut(s, " ")
	l.Step = Step(step)
	switch l.Step {
	case Version, Done:
		l.Text = rest
		return l, true
	case Begin, Failed:
		l.Name, l.Text, _ = strings.Cut(rest, " ")
		return l, l.Name != ""
	case End:
		fields := strings.Fields(rest)
		if len(fields) != 4 {
			return Line{}, false
		}
		l.Name = fields[0]
		for i, p := range []*int64{&l.Ops, &l.Bytes, &l.Ns} {
			n, err := strconv.ParseInt(fields[i+1], 10, 64)
			if err != nil || n < 0 {
				return Line{}, false
			}
			*p = n
		}
		return l, l.Ops > 0 && l.Ns > 0
	}
	return Line{}, false
}
