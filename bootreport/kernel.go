package bootreport

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/duplex-run/duplex/bootreport/klog"
)

// Bounds on what a Document keeps of a log, and what is worth showing.
const (
	maxCalls = 1000
	maxGaps  = 20
	// minGap is the shortest time without a line that is noted.
	minGap = 100 * time.Microsecond
	// shown is how many of the costliest initcalls and gaps are bars, if each is at
	// least 1/barShare of the kernel's time.
	shown    = 12
	barShare = 100
)

// runInit begins the line before the kernel executes its init, the agent.
const runInit = "Run "

// kernelLog is the part of a log before init.
type kernelLog struct {
	log   *klog.Log
	lines []klog.Line // until runInit, that one included
	calls []klog.Call // the kernel's own
	end   time.Duration
	// first and last are when the first initcall began and the last one ended.
	first, last time.Duration
}

func beforeInit(log *klog.Log) *kernelLog {
	k := &kernelLog{log: log, lines: log.Lines}
	for i, l := range log.Lines {
		if strings.HasPrefix(l.Text, runInit) && strings.HasSuffix(l.Text, " as init process") {
			k.lines = log.Lines[:i+1]
			break
		}
	}
	if len(k.lines) == 0 {
		return k
	}
	k.end = k.lines[len(k.lines)-1].At
	for _, c := range log.Initcalls {
		if c.Module != "" || c.At > k.end {
			continue
		}
		if len(k.calls) == 0 {
			k.first = c.At
		}
		k.first, k.last = min(k.first, c.At), max(k.last, c.At+c.Took)
		k.calls = append(k.calls, c)
	}
	return k
}

// gaps are the times between two lines that are no initcall's, longest first.
func (k *kernelLog) gaps() []Gap {
	var out []Gap
	open := 0
	for i, l := range k.lines {
		switch {
		case strings.HasPrefix(l.Text, "calling  "):
			open++
		case strings.HasPrefix(l.Text, "initcall ") && open > 0:
			open--
		}
		if open > 0 || i+1 == len(k.lines) {
			continue
		}
		if d := k.lines[i+1].At - l.At; d >= minGap {
			out = append(out, Gap{AtNs: int64(l.At), TookNs: int64(d), After: l.Text, Before: k.lines[i+1].Text})
		}
	}
	slices.SortStableFunc(out, func(a, b Gap) int { return cmp.Compare(b.TookNs, a.TookNs) })
	return out[:min(len(out), maxGaps)]
}

// summary is the document's view of the log. seen is from the first entry to the
// agent, on the host's clock.
func (w *waterfall) summary() Kernel {
	k := beforeInit(w.log)
	out := Kernel{
		Lines: len(w.log.Lines), Lost: w.log.Lost, Bad: w.log.Bad,
		SeenNs: w.at["kernel_up"] - w.at["entered"],
		Count:  len(k.calls), Gaps: k.gaps(), BehindNs: int64(w.log.Behind),
		Initcalls: calls(w.log.Initcalls), Probes: calls(w.log.Probes),
	}
	for _, c := range k.calls {
		out.InitcallsNs += int64(c.Took)
	}
	if m := w.marks(); len(m) > 0 {
		out.LogNs = int64(m[0].line.At)
		last := m[0]
		for _, x := range m {
			if x.at <= w.at["workload"] {
				last = x
			}
		}
		out.Clock = Clock{HostNs: last.at - m[0].at, GuestNs: int64(last.line.At - m[0].line.At)}
	}
	return out
}

// calls are the costliest first.
func calls(in []klog.Call) []Call {
	var out []Call
	for _, c := range in {
		out = append(out, Call{Name: c.Name, Owner: owner(c), AtNs: int64(c.At), TookNs: int64(c.Took), Result: c.Result})
	}
	slices.SortStableFunc(out, func(a, b Call) int { return cmp.Compare(b.TookNs, a.TookNs) })
	return out[:min(len(out), maxCalls)]
}

// kernel adds the parts of the kernel's phase p that its log tells of.
func (w *waterfall) kernel(p *Span) {
	zero, ok := w.zero()
	k := beforeInit(w.log)
	if !ok || len(k.lines) == 0 {
		return
	}
	add := func(depth int, name string, from, to time.Duration) {
		s := Span{Name: name, Group: GroupKernel, Depth: depth, Clock: GuestClock,
			StartNs: clamp(zero+int64(from), p), EndNs: clamp(zero+int64(to), p)}
		if s.EndNs > s.StartNs {
			w.out = append(w.out, s)
		}
	}
	if zero > p.StartNs {
		w.out = append(w.out, Span{Name: "not in the log", Group: GroupKernel, Depth: 1, Clock: GuestClock,
			StartNs: p.StartNs, EndNs: min(zero, p.EndNs)})
	}
	costly := w.costly(k, p.Took())
	section := func(name string, from, to time.Duration) {
		add(1, name, from, to)
		for _, c := range costly {
			if c.at >= from && c.at < to {
				add(2, c.name, c.at, c.at+c.took)
			}
		}
	}
	if len(k.calls) == 0 {
		section("log, without initcalls", 0, k.end)
	} else {
		section("before the first initcall", 0, k.first)
		section("initcalls", k.first, max(k.last, k.first))
		section("make init ready", k.last, k.end)
	}
	section("start the agent", k.end, time.Duration(p.EndNs-zero))
}

func clamp(at int64, p *Span) int64 { return min(max(at, p.StartNs), p.EndNs) }

// bar is an initcall or a gap that is worth showing.
type bar struct {
	name     string
	at, took time.Duration
}

// costly is the costliest initcalls and gaps, in order of time.
func (w *waterfall) costly(k *kernelLog, of int64) []bar {
	var out []bar
	for _, c := range k.calls {
		out = append(out, bar{c.Name, c.At, c.Took})
	}
	for _, g := range k.gaps() {
		out = append(out, bar{"after: " + g.After, time.Duration(g.AtNs), time.Duration(g.TookNs)})
	}
	out = slices.DeleteFunc(out, func(b bar) bool { return int64(b.took)*barShare < of })
	slices.SortStableFunc(out, func(a, b bar) int { return cmp.Compare(b.took, a.took) })
	out = out[:min(len(out), shown)]
	slices.SortStableFunc(out, func(a, b bar) int { return cmp.Compare(a.at, b.at) })
	return out
}
