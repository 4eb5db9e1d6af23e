package trace

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// Count is how often something happened and what it cost.
type Count struct {
	Name  string `json:"name"`
	Exits uint64 `json:"exits"`
	// HostNs is the time the monitor took to handle them, in nanoseconds.
	HostNs uint64 `json:"host_ns"`
}

// Phase is the time from one mark or event to the next.
type Phase struct {
	Name    string `json:"name"` // of what it starts with
	StartNs uint64 `json:"start_ns"`
	EndNs   uint64 `json:"end_ns"`
	Exits   uint64 `json:"exits"`
	HostNs  uint64 `json:"host_ns"`
}

// Costly is one exit that took long to handle.
type Costly struct {
	TimeNs uint64 `json:"time_ns"`
	HostNs uint64 `json:"host_ns"`
	VCPU   int    `json:"vcpu"`
	What   string `json:"what"`
}

// Summary is a trace added up.
type Summary struct {
	VCPUs     int      `json:"vcpus"`
	Exits     uint64   `json:"exits"`
	Dropped   uint64   `json:"dropped"`
	SpanNs    uint64   `json:"span_ns"` // from the start to the last record
	Reasons   []Count  `json:"reasons"`
	Registers []Count  `json:"registers"`
	Phases    []Phase  `json:"phases"`
	Costliest []Costly `json:"costliest"`
}

const (
	exitIO    Kind = 2 // KVM_EXIT_IO
	exitMMIO  Kind = 6 // KVM_EXIT_MMIO
	costliest      = 10
	// maxNames bounds the distinct registers and steps that are told apart: a
	// hostile guest can touch any address.
	maxNames = 4096
	others   = "others"
)

// Summarize reads a whole trace. Memory is bounded whatever the file holds.
func Summarize(in io.Reader) (*Summary, error) {
	r, err := NewReader(in)
	if err != nil {
		return nil, err
	}
	a := adder{h: &r.Header, reasons: map[string]*Count{}, registers: map[string]*Count{}}
	a.sum.VCPUs = r.Header.VCPUs
	var rec Record
	for {
		err := r.Next(&rec)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		a.add(&rec)
	}
	return a.finish(), nil
}

type adder struct {
	h         *Header
	sum       Summary
	reasons   map[string]*Count
	registers map[string]*Count
	slots     []slot
}

// slot adds up the exits of one slotNs, so that phases can be told once all
// steps are known: records of several vCPUs are not in order.
type slot struct{ exits, host uint64 }

const slotNs = 1 << 20 // about a millisecond
const maxSlots = 1 << 20

func (a *adder) add(r *Record) {
	switch r.Kind {
	case Dropped:
		a.sum.Dropped += r.Addr
		return
	case Mark, Event:
		if len(a.sum.Phases) < maxNames {
			a.sum.Phases = append(a.sum.Phases, Phase{Name: a.h.step(r), StartNs: r.Time})
		}
		a.sum.SpanNs = max(a.sum.SpanNs, r.Time)
		return
	}
	a.sum.Exits++
	a.sum.SpanNs = max(a.sum.SpanNs, r.Time)
	count(a.reasons, a.h.reason(r.Kind), r)
	if r.Kind == exitIO || r.Kind == exitMMIO {
		count(a.registers, a.what(r), r)
	}
	a.slot(r)
	a.costly(r)
}

func (a *adder) slot(r *Record) {
	i := int(min(r.Time/slotNs, maxSlots-1))
	for len(a.slots) <= i {
		a.slots = append(a.slots, slot{})
	}
	a.slots[i].exits++
	a.slots[i].host += uint64(r.Host)
}

func count(in map[string]*Count, name string, r *Record) {
	c := in[name]
	if c == nil {
		if len(in) >= maxNames {
			name = others
			c = in[name]
		}
		if c == nil {
			c = &Count{Name: name}
			in[name] = c
		}
	}
	c.Exits++
	c.HostNs += uint64(r.Host)
}

// what says what an exit was about.
func (a *adder) what(r *Record) string {
	if r.Kind != exitIO && r.Kind != exitMMIO {
		return a.h.reason(r.Kind)
	}
	way := "read "
	if r.Write {
		way = "write "
	}
	return way + a.h.where(r, r.Kind == exitIO)
}

func (a *adder) costly(r *Record) {
	list := a.sum.Costliest
	if len(list) == costliest && uint64(r.Host) <= list[costliest-1].HostNs {
		return
	}
	c := Costly{TimeNs: r.Time, HostNs: uint64(r.Host), VCPU: int(r.VCPU), What: a.what(r)}
	i, _ := slices.BinarySearchFunc(list, c.HostNs, func(x Costly, ns uint64) int { return cmp.Compare(ns, x.HostNs) })
	list = slices.Insert(list, i, c)
	a.sum.Costliest = list[:min(len(list), costliest)]
}

func (a *adder) finish() *Summary {
	s := &a.sum
	s.Reasons, s.Registers = sorted(a.reasons), sorted(a.registers)
	slices.SortStableFunc(s.Phases, func(x, y Phase) int { return cmp.Compare(x.StartNs, y.StartNs) })
	for i := range s.Phases {
		p := &s.Phases[i]
		p.EndNs = s.SpanNs
		if i+1 < len(s.Phases) {
			p.EndNs = s.Phases[i+1].StartNs
		}
		from, to := p.StartNs/slotNs, p.EndNs/slotNs
		if i+1 == len(s.Phases) {
			to++
		}
		for j := min(from, uint64(len(a.slots))); j < min(to, uint64(len(a.slots))); j++ {
			p.Exits += a.slots[j].exits
			p.HostNs += a.slots[j].host
		}
	}
	return s
}

// sorted is the counts, costliest first.
func sorted(in map[string]*Count) []Count {
	out := make([]Count, 0, len(in))
	for _, c := range in {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(x, y Count) int {
		return cmp.Or(cmp.Compare(y.HostNs, x.HostNs), cmp.Compare(y.Exits, x.Exits), cmp.Compare(x.Name, y.Name))
	})
	return out
}

// WriteText writes the summary for people; top bounds the registers shown.
func (s *Summary) WriteText(out io.Writer, top int) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) } // Flush reports
	p("%d exits of %d vCPUs in %v", s.Exits, s.VCPUs, dur(s.SpanNs))
	if s.Dropped > 0 {
		p(" (%d more not recorded: the file was full)", s.Dropped)
	}
	p("\n\nexits\thandled in\t by reason\n")
	counts(p, s.Reasons, len(s.Reasons))
	p("\nexits\thandled in\t by device register\n")
	counts(p, s.Registers, top)
	p("\nexits\thandled in\ttook\t by phase, from each step to the next (1 ms steps)\n")
	for _, x := range s.Phases {
		p("%d\t%v\t%v\t %s\n", x.Exits, dur(x.HostNs), dur(x.EndNs-x.StartNs), x.Name)
	}
	p("\nat\thandled in\tvCPU\t the costliest\n")
	for _, x := range s.Costliest {
		p("%v\t%v\t%d\t %s\n", dur(x.TimeNs), dur(x.HostNs), x.VCPU, x.What)
	}
	return w.Flush()
}

func counts(p func(string, ...any), list []Count, top int) {
	for i, c := range list {
		if i == top {
			p("\t\t and %d more\n", len(list)-top)
			return
		}
		p("%d\t%v\t %s\n", c.Exits, dur(c.HostNs), c.Name)
	}
}

func dur(ns uint64) time.Duration {
	d := time.Duration(min(ns, 1<<62))
	switch {
	case d > time.Second:
		return d.Round(time.Millisecond)
	case d > time.Millisecond:
		return d.Round(time.Microsecond)
	}
	return d
}
