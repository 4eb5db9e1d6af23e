package vmmbench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report writes the tables of the records.
func Report(w io.Writer, records []Record) error {
	p := &printer{w: w, records: records}
	p.versions()
	p.speed()
	p.costs()
	p.memory()
	p.start()
	p.failures()
	return p.err
}

// printer writes the parts of a report.
type printer struct {
	w       io.Writer
	records []Record
	err     error
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// table writes rows of cells in columns.
func (p *printer) table(rows [][]string) {
	if p.err != nil {
		return
	}
	t := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		_, _ = fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	p.err = t.Flush()
}

// of returns the records of a monitor with a name, in the order of the runs.
func (p *printer) of(monitor, name string) []Record {
	var list []Record
	for _, r := range p.records {
		if r.Monitor == monitor && r.Name == name {
			list = append(list, r)
		}
	}
	slices.SortStableFunc(list, func(a, b Record) int { return a.Run - b.Run })
	return list
}

func (p *printer) versions() {
	seen := map[string]bool{}
	for _, r := range p.records {
		name := r.Monitor
		if name == "" {
			name = "guest"
		}
		if line := name + ": " + r.Text; r.Name == RecordVersion && !seen[line] {
			seen[line] = true
			p.printf("%s\n", line)
		}
	}
}

// measured are the benchmarks that both monitors have results of.
func (p *printer) measured() []Benchmark {
	return slices.DeleteFunc(slices.Clone(Benchmarks), func(b Benchmark) bool {
		return slices.ContainsFunc(Monitors, func(m string) bool { return len(p.of(m, b.Name)) == 0 })
	})
}

func (p *printer) speed() {
	list := p.measured()
	if len(list) == 0 {
		return
	}
	rows := [][]string{{"", "", Duplex, "range", QEMU, "range", "ratio", "range", "target"}}
	for _, b := range list {
		ours, theirs := b.rates(p.of(Duplex, b.Name)), b.rates(p.of(QEMU, b.Name))
		ratios := pairs(ours, theirs)
		ratio := median(ours) / median(theirs)
		rows = append(rows, []string{
			b.Title, string(b.Unit), number(median(ours)), span(ours), number(median(theirs)), span(theirs),
			fmt.Sprintf("%.2f", ratio), fmt.Sprintf("%.2f-%.2f", slices.Min(ratios), slices.Max(ratios)), verdict(ratio, b.Target),
		})
	}
	p.printf("\nSpeed: medians of %d runs; more is better\n", len(p.of(Duplex, list[0].Name)))
	p.table(rows)
}

func verdict(ratio, target float64) string {
	switch {
	case target == 0:
		return ""
	case ratio >= target:
		return fmt.Sprintf("%.1f met", target)
	}
	return fmt.Sprintf("%.1f MISSED", target)
}

// rates are the results of one benchmark in its unit.
func (b *Benchmark) rates(records []Record) []float64 {
	var list []float64
	for _, r := range records {
		amount := float64(r.Ops)
		if b.Unit == MBytes {
			amount = float64(r.Bytes) / 1e6
		}
		list = append(list, amount/(float64(r.Ns)/1e9))
	}
	return list
}

// pairs are the ratios of the runs with the same number: both ran right after
// another.
func pairs(ours, theirs []float64) []float64 {
	var list []float64
	for i := range min(len(ours), len(theirs)) {
		list = append(list, ours[i]/theirs[i])
	}
	return list
}

func (p *printer) costs() {
	rows := [][]string{{"", "", "exits", "to the monitor", "notifications", "interrupt controller", "interrupts", "halts"}}
	for _, b := range p.measured() {
		for _, m := range Monitors {
			row := []string{b.Name, m}
			for _, f := range []func(*Counters) int64{
				func(c *Counters) int64 { return c.Exits }, func(c *Counters) int64 { return c.User },
				func(c *Counters) int64 { return c.Kicks }, func(c *Counters) int64 { return c.Kernel },
				func(c *Counters) int64 { return c.Inject },
				func(c *Counters) int64 { return c.Halts },
			} {
				var list []float64
				for _, r := range p.of(m, b.Name) {
					if r.Counters != nil {
						list = append(list, float64(f(r.Counters))/float64(b.per(&r)))
					}
				}
				row = append(row, fmt.Sprintf("%.2f", median(list)))
			}
			rows = append(rows, row)
		}
	}
	if len(rows) == 1 {
		return
	}
	p.printf("\nVM exits for one operation (of streams: for 64 KiB), from KVM's counters; medians\n")
	p.table(rows)
}

// per is what the counters of a record are divided by.
func (b *Benchmark) per(r *Record) int64 {
	if b.Unit == MBytes {
		return max(1, r.Bytes/StreamWrite)
	}
	return max(1, r.Ops)
}

func (p *printer) memory() {
	rows := [][]string{{"", "guest memory", "beside it", "program file", "anonymous", "other", "private", "processes"}}
	add := func(title, monitor, name string) {
		list := p.of(monitor, name)
		list = slices.DeleteFunc(list, func(r Record) bool { return r.Memory == nil })
		if len(list) == 0 {
			return
		}
		row := []string{title}
		for _, f := range []func(*Memory) int64{
			func(m *Memory) int64 { return m.Guest }, (*Memory).Beside,
			func(m *Memory) int64 { return m.Program }, func(m *Memory) int64 { return m.Heap },
			func(m *Memory) int64 { return m.Other }, func(m *Memory) int64 { return m.Private },
		} {
			var values []float64
			for _, r := range list {
				values = append(values, float64(f(r.Memory))/(1<<20))
			}
			row = append(row, fmt.Sprintf("%.1f", median(values)))
		}
		rows = append(rows, append(row, fmt.Sprint(list[0].Memory.Processes)))
	}
	for _, m := range Monitors {
		add(m+", in the lab, after the benchmarks", m, RecordMemory)
	}
	add(Duplex+", on this host, idle", Duplex, RecordIdle)
	if len(rows) == 1 {
		return
	}
	p.printf("\nMemory of a machine: PSS of all its processes in MiB; medians (beside guest memory: at most %d, goal %d)\n", maxMemory, goalMemory)
	p.table(rows)
}

// What issue 3 promises, in MiB and milliseconds.
const (
	maxMemory  = 12
	goalMemory = 5
	maxStart   = 10
)

func (p *printer) start() {
	var ms []float64
	for _, r := range p.of(Duplex, RecordStart) {
		ms = append(ms, float64(r.Ns)/1e6)
	}
	if len(ms) == 0 {
		return
	}
	p.printf("\nStart on this host, exec to the first KVM_RUN: median %.2f ms of %d, %.2f to %.2f (at most %d)\n",
		median(ms), len(ms), slices.Min(ms), slices.Max(ms), maxStart)
}

func (p *printer) failures() {
	for _, r := range p.records {
		if r.Name == RecordFailed {
			p.printf("\nFAILED: %s, run %d: %s\n", r.Monitor, r.Run+1, r.Text)
		}
	}
}

// median is 0 for no values.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

func span(values []float64) string {
	return number(slices.Min(values)) + "-" + number(slices.Max(values))
}

func number(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
