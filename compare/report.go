package compare

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/duplex-run/duplex/compare/stats"
	"github.com/duplex-run/duplex/internal/workload"
)

// Columns is the width that every line of the report keeps to.
const Columns = 80

// WriteJSON writes the document as --json does: one line an object level, as
// diff and eyes like it.
func WriteJSON(w io.Writer, doc *Document) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("write the document: %w", err)
	}
	return nil
}

// Report writes the document as tables for a terminal, in colour if asked.
func Report(w io.Writer, doc *Document, colour bool) error {
	r := &reporter{doc: doc, colour: colour, names: sideNames(doc.Settings.Sides)}
	r.head()
	r.times()
	r.pairs()
	r.steps()
	r.costs()
	r.verdicts()
	r.failures()
	r.isolation()
	if _, err := io.WriteString(w, r.b.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

type reporter struct {
	b      strings.Builder
	doc    *Document
	colour bool
	names  []string
}

// sideNames tells columns of the same kind apart.
func sideNames(sides []Column) []string {
	count, seen := map[Column]int{}, map[Column]int{}
	for _, s := range sides {
		count[s]++
	}
	var names []string
	for _, s := range sides {
		name := string(s)
		if count[s] > 1 {
			name += " " + string(rune('A'+seen[s]))
		}
		seen[s]++
		names = append(names, name)
	}
	return names
}

func (r *reporter) printf(format string, args ...any) { fmt.Fprintf(&r.b, format, args...) }

// text writes a paragraph, wrapped; a word longer than a line is cut.
func (r *reporter) text(s string) {
	var line []rune
	flush := func() {
		r.printf("%s\n", string(line))
		line = line[:0]
	}
	for field := range strings.FieldsSeq(s) {
		word := []rune(field)
		if len(line) > 0 && len(line)+1+len(word) > Columns {
			flush()
		}
		if len(line) > 0 {
			line = append(line, ' ')
		}
		line = append(line, word...)
		for len(line) > Columns {
			rest := slices.Clone(line[Columns:])
			line = line[:Columns]
			flush()
			line = append(line, rest...)
		}
	}
	flush()
}

const (
	bold  = "\x1b[1m"
	green = "\x1b[32m"
	reset = "\x1b[0m"
)

func (r *reporter) paint(code, s string) string {
	if !r.colour {
		return s
	}
	return code + s + reset
}

// cell right-aligns s in width, then paints it.
func (r *reporter) cell(s string, width int, code string) string {
	pad := strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 1))
	if code == "" {
		return pad + s
	}
	return pad + r.paint(code, s)
}

func (r *reporter) head() {
	d := r.doc
	if l := d.Host.Lab; l != nil {
		clock := ""
		if l.Deterministic {
			clock = " Its clock counts instructions (deterministic)."
		}
		r.text(fmt.Sprintf("In the lab, an emulated machine, both sides together: %s.%s", strings.TrimSuffix(l.Why, "."), clock))
	}
	command := strings.Join(d.Settings.Command, " ")
	if command == "" {
		command = "(its own command)"
	}
	r.text(oneLine(fmt.Sprintf("Image %s: %s", d.Image.Ref, command)))
	r.text(fmt.Sprintf("Host: %s, %d CPUs, %s, Linux %s, cgroup %s; KVM: %s", d.Host.CPU, d.Host.CPUs,
		quantityText(float64(d.Host.Memory), "bytes"), d.Host.Kernel, d.Host.Cgroup, d.Host.KVM))
	rounds := "pairs"
	if len(r.names) > 2 {
		rounds = "rounds of all"
	}
	r.text(fmt.Sprintf("%d samples a side after %d warm-up runs, in shuffled %s, seed %d", d.Settings.N, d.Settings.Warmup, rounds, d.Settings.Seed))
	if s := d.Summary.Snapshot; s != nil {
		r.text(fmt.Sprintf("%s runs are restored from a snapshot, made once before and in none of the times below: %s, %s on disk. Their step \"loaded\" is the restore, \"kernel up\" the agent going on.",
			WarmVM, quantityText(float64(s.CreateNs), "ns"), quantityText(float64(s.Bytes), "bytes")))
	}
	if d.Summary.Interrupted {
		r.text(fmt.Sprintf("Ended early: %d of %d runs were made.", len(d.Runs), len(d.Settings.Order)))
	}
}

// Titles of the phases as the table names them.
var titles = map[string]string{
	"image": "image ready", "created": "created", "loaded": "loaded", "entered": "entered",
	"kernel_up": "kernel up", "workload": "workload", "first_byte": "first byte",
	"exited": "exit known", "torn_down": "torn down", "cpu": "host CPU",
	"vmm_private": "VMM private", "guest_rss": "guest memory", "cgroup_peak": "cgroup peak",
}

func title(name string) string {
	if t, ok := titles[name]; ok {
		return t
	}
	return oneLine(name)
}

func (r *reporter) rows(kind string) []Metric {
	var out []Metric
	for _, m := range r.doc.Summary.Metrics {
		if m.Kind == kind {
			out = append(out, m)
		}
	}
	return out
}

func (r *reporter) times() {
	rows := append(r.rows(kindReached), r.rows(kindCPU)...)
	if len(rows) == 0 {
		return
	}
	r.printf("\n%s\n", r.paint(bold, "Time from exec to, median"))
	r.printf("%-12s", "")
	for _, name := range r.names {
		r.printf("%s", r.cell(name, 12, ""))
	}
	two := len(r.names) == 2
	if two {
		r.differenceHead()
	}
	r.printf("\n")
	for _, m := range rows {
		r.printf("%-12s", clip(title(m.Name), 12))
		for side, s := range m.Sides {
			r.printf("%s", r.sideCell(m, side, s, 12))
		}
		if two && m.Difference != nil {
			r.difference(m, *m.Difference)
		}
		r.printf("\n")
	}
}

func (r *reporter) differenceHead() {
	r.printf("%s%s%s%s", r.cell("difference", 11, ""), r.cell("95% interval", 17, ""), r.cell("p", 6, ""), r.cell("delta", 6, ""))
}

func (r *reporter) difference(m Metric, d stats.Difference) {
	interval := "too few"
	if d.HasInterval {
		interval = intervalText(d.Low, d.High, m.Unit)
	}
	r.printf("%s%s%s%s", r.cell(signedText(d.Diff, m.Unit), 11, ""), r.cell(interval, 17, ""),
		r.cell(pText(d.P), 6, ""), r.cell(fmt.Sprintf("%+.2f", d.Delta), 6, ""))
}

// pairs shows the differences of more than two sides, pair by pair, for the moments
// that a user waits for. The document has all.
func (r *reporter) pairs() {
	if len(r.names) == 2 {
		return
	}
	for _, m := range r.awaited() {
		pairs := m.pairs()
		if len(pairs) == 0 {
			continue
		}
		r.printf("\n%-24s", r.paint(bold, fmt.Sprintf("%-24s", sentence(title(m.Name)))))
		r.differenceHead()
		r.printf("\n")
		for _, p := range pairs {
			r.printf("%-24s", clip(r.names[p.A]+" - "+r.names[p.B], 24))
			r.difference(m, p.Difference)
			if p.Smaller >= 0 {
				r.printf(" %s", r.paint(green, "*"+clip(r.names[p.Smaller], 13)))
			}
			r.printf("\n")
		}
	}
}

// sideCell marks the side that may be called smaller than all others.
func (r *reporter) sideCell(m Metric, side int, s *Side, width int) string {
	switch {
	case s == nil:
		return r.cell("-", width, "")
	case m.smallest() == side:
		return r.cell("*"+quantityText(s.Median, m.Unit), width, green)
	default:
		return r.cell(quantityText(s.Median, m.Unit), width, "")
	}
}

// steps shows where the time goes: per side, without comparing unlike steps. More
// than two sides leave no room for the ranges.
func (r *reporter) steps() {
	rows := r.rows(kindStep)
	if len(rows) == 0 {
		return
	}
	width, what := 34, "median (min..max)"
	if len(r.names) > 2 {
		width, what = 12, "median"
	}
	r.printf("\n%s\n%-12s", r.paint(bold, "Where it goes: time since the phase before, "+what), "")
	for _, name := range r.names {
		r.printf("%s", r.cell(name, width, ""))
	}
	r.printf("\n")
	for _, m := range rows {
		r.printf("%-12s", clip(title(m.Name), 12))
		for _, s := range m.Sides {
			text := "-"
			if s != nil {
				text = quantityText(s.Median, m.Unit)
			}
			if s != nil && len(r.names) == 2 {
				text += fmt.Sprintf(" (%s)", rangeText(s.Min, s.Max, m.Unit))
			}
			r.printf("%s", r.cell(text, width, ""))
		}
		r.printf("\n")
	}
}

func rangeText(low, high float64, unitName string) string {
	u := pick(unitsOf(unitName), high)
	return strings.TrimSpace(fmt.Sprintf("%s..%s %s", digits(low/u.size, high/u.size), digits(high/u.size, high/u.size), u.name))
}

// costs shows memory and exits: kinds that only one side has.
func (r *reporter) costs() {
	if rows := r.rows(kindMemory); len(rows) > 0 {
		r.printf("\n%s\n", r.paint(bold, "Peak memory, median"))
		for _, m := range rows {
			r.printf("%-12s", clip(title(m.Name), 12))
			for side, s := range m.Sides {
				r.printf("%s", r.sideCell(m, side, s, 12))
			}
			r.printf("\n")
		}
	}
	for side, name := range r.names {
		var parts []string
		for _, m := range r.rows(kindExits) {
			if s := m.Sides[side]; s != nil {
				parts = append(parts, fmt.Sprintf("%s %.0f", title(m.Name), s.Median))
			}
		}
		if len(parts) > 0 {
			r.printf("\n")
			r.text(fmt.Sprintf("VM exits of %s, median: %s", name, strings.Join(parts, ", ")))
		}
	}
}

// failures names every failed sample, and says where outliers are.
func (r *reporter) failures() {
	sum := &r.doc.Summary
	n := 0
	for _, failed := range sum.Failed {
		n += failed
	}
	if n > 0 {
		r.printf("\n%s\n", r.paint(bold, fmt.Sprintf("Failed runs, in no number above: %d of %d", n, len(r.doc.Runs))))
		for _, run := range r.doc.Runs {
			if run.Exit.Failed != "" {
				r.text(fmt.Sprintf("run %d, %s: %s", run.Order, r.names[r.doc.Settings.Order[run.Order]], run.Exit.Failed))
			}
		}
	}
	for _, m := range r.rows(kindReached) {
		if m.Name != workload.PhaseTornDown.String() {
			continue
		}
		for side, s := range m.Sides {
			if s != nil && len(s.FarOut) > 0 {
				r.text(fmt.Sprintf("Far out by total time, and counted: runs %v of %s.", s.FarOut, r.names[side]))
			}
			if s != nil && s.P99 != nil {
				r.text(fmt.Sprintf("99th percentile of the total time of %s: %s.", r.names[side], quantityText(*s.P99, m.Unit)))
			}
		}
	}
}

func clip(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:width-2]) + ".."
	}
	return s
}
