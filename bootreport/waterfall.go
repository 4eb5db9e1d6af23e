package bootreport

import (
	"cmp"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/bootreport/klog"
	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
)

// phase is how the time until a phase is shown: its own name, and that of the part
// of it after its last step.
type phase struct{ name, group, rest string }

var phases = map[string]phase{
	"image":      {"duplex finds what to run", GroupHost, "find kernel and initramfs"},
	"created":    {"the monitor makes the machine", GroupHost, "make devices, VM and vCPUs"},
	"loaded":     {"kernel and initramfs into memory", GroupHost, ""},
	"entered":    {"the monitor goes to jail", GroupHost, "start the vCPUs"},
	"kernel_up":  {"guest kernel", GroupKernel, ""},
	"workload":   {"guest agent", GroupAgent, ""},
	"first_byte": {"the command, to its first byte", GroupCommand, ""},
	"exited":     {"the command, to its end", GroupCommand, ""},
}

// restored are those that are another thing when the machine is restored.
var restored = map[string]phase{
	"loaded":    {"memory and devices restored", GroupHost, ""},
	"kernel_up": {"guest, until its agent goes on", GroupKernel, ""},
}

// waterfall is what the spans are made of. Times in it are absolute, as
// workload.Now has them, except those of the log.
type waterfall struct {
	begin int64
	end   string           // phase that ends it
	warm  bool             // restored, not booted
	at    map[string]int64 // phases, since begin
	steps []workload.Step
	log   *klog.Log

	out []Span
}

// spans makes all spans but what the trace adds. Phases that were passed in another
// order than usual keep the order of their times.
func (w *waterfall) spans() []Span {
	var reached []string
	for name := range phases {
		if at, ok := w.at[name]; ok && at <= w.at[w.end] && (name != "exited" || w.end == name) {
			reached = append(reached, name)
		}
	}
	slices.SortFunc(reached, func(a, b string) int { return cmp.Or(cmp.Compare(w.at[a], w.at[b]), cmp.Compare(a, b)) })
	last := int64(0)
	for _, name := range reached {
		p := phases[name]
		if r, ok := restored[name]; ok && w.warm {
			p = r
		}
		s := Span{Name: p.name, Group: p.group, StartNs: last, EndNs: w.at[name], Clock: HostClock}
		last = s.EndNs
		w.out = append(w.out, s)
		switch name {
		case "kernel_up":
			w.kernel(&s)
		case "workload":
			w.agent(&s)
		default:
			w.parts(&s, p.rest)
		}
	}
	w.costs()
	return w.out
}

// parts cuts a phase of the host where steps ended.
func (w *waterfall) parts(p *Span, rest string) {
	last := p.StartNs
	add := func(name string, end int64) {
		w.out = append(w.out, Span{Name: name, Group: p.Group, Depth: 1, StartNs: last, EndNs: end, Clock: HostClock})
		last = end
	}
	for _, s := range w.sorted() {
		at := s.Ns - w.begin
		if _, isPhase := phases[s.Name]; isPhase || s.Name == workload.StepMark || at <= last || at > p.EndNs {
			continue
		}
		add(s.Name, at)
	}
	if last > p.StartNs && rest != "" {
		add(rest, p.EndNs)
	}
}

// sorted is the steps in order of time: they come from two processes.
func (w *waterfall) sorted() []workload.Step {
	steps := slices.Clone(w.steps)
	slices.SortStableFunc(steps, func(a, b workload.Step) int { return cmp.Compare(a.Ns, b.Ns) })
	return steps
}

// marked is a step of the agent: when the host saw its mark, and its line in the
// log.
type marked struct {
	at   int64 // since begin
	line klog.Line
	name string
}

// marks pairs the agent's marks with their lines, in order. A log that lost lines
// at its start keeps its last ones.
func (w *waterfall) marks() []marked {
	var at []int64
	for _, s := range w.sorted() {
		if s.Name == workload.StepMark {
			at = append(at, s.Ns-w.begin)
		}
	}
	var lines []klog.Line
	for _, l := range w.log.Lines {
		if strings.HasPrefix(l.Text, agentproto.StepPrefix) {
			lines = append(lines, l)
		}
	}
	if len(lines) > len(at) { // the machine ended between a line and its mark
		lines = lines[:len(at)]
	}
	if w.log.Lost > 0 {
		at = at[len(at)-len(lines):]
	}
	out := make([]marked, 0, len(lines))
	for i, l := range lines {
		out = append(out, marked{at[i], l, strings.TrimPrefix(l.Text, agentproto.StepPrefix)})
	}
	return out
}

// agent shows the agent's steps, each until the next one's mark.
func (w *waterfall) agent(p *Span) {
	steps := w.marks()
	for i, m := range steps {
		end := p.EndNs
		if i+1 < len(steps) {
			end = min(end, steps[i+1].at)
		}
		if m.at < p.StartNs || m.at >= p.EndNs {
			continue
		}
		w.out = append(w.out, Span{Name: m.name, Group: GroupAgent, Depth: 1, StartNs: m.at, EndNs: end, Clock: HostClock})
	}
}

// zero is when the log's clock was 0, placed by the agent's first step.
func (w *waterfall) zero() (at int64, ok bool) {
	m := w.marks()
	if len(m) == 0 {
		return 0, false
	}
	return m[0].at - int64(m[0].line.At), true
}

// sample is what the monitor and KVM had counted at a step.
type sample struct {
	workload.Faults
	workload.KVM
}

// costs gives the spans between two samples their difference. Before the monitor
// and its machine there was nothing to count.
func (w *waterfall) costs() {
	known := map[int64]*sample{}
	first, hasKVM := int64(-1), false
	for _, s := range w.steps {
		if s.Process != workload.ProcessMonitor {
			continue
		}
		if at := s.Ns - w.begin; first < 0 || at < first {
			first = at
		}
		if s.Faults != (workload.Faults{}) {
			known[s.Ns-w.begin] = &sample{s.Faults, s.KVM}
		}
		hasKVM = hasKVM || s.KVM != (workload.KVM{})
	}
	at := func(ns int64) *sample {
		if s := known[ns]; s != nil || ns > first {
			return s
		}
		return &sample{}
	}
	for i := range w.out {
		s := &w.out[i]
		if s.Clock != HostClock || s.EndNs <= first {
			continue
		}
		from, to := at(s.StartNs), at(s.EndNs)
		if from == nil || to == nil || to.Minor < from.Minor || to.Major < from.Major {
			continue // nothing counts backward: that monitor is not to be believed
		}
		s.Faults = &workload.Faults{Minor: to.Minor - from.Minor, Major: to.Major - from.Major}
		if k, ok := to.KVM.Sub(from.KVM); ok && hasKVM && s.Group != GroupHost {
			s.KVM = &k
		}
	}
}
