package compare

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/duplex-run/duplex/compare/isolation"
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
	names  [2]string
}

func sideNames(sides [2]workload.Isolation) [2]string {
	a, b := string(sides[0]), string(sides[1])
	if a == b {
		return [2]string{a + " A", b + " B"}
	}
	return [2]string{a, b}
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
	r.text(fmt.Sprintf("%d samples a side after %d warm-up runs, in shuffled pairs, seed %d", d.Settings.N, d.Settings.Warmup, d.Settings.Seed))
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
	r.printf("%-12s%s%s%s%s%s%s%s\n", "", r.cell(r.names[0], 12, ""), r.cell(r.names[1], 12, ""),
		r.cell("difference", 11, ""), r.cell("95% interval", 17, ""), r.cell("p", 6, ""), r.cell("delta", 6, ""), "")
	for _, m := range rows {
		r.printf("%-12s", clip(title(m.Name), 12))
		for side, s := range m.Sides {
			r.printf("%s", r.sideCell(m, side, s, 12))
		}
		if d := m.Difference; d != nil {
			r.printf("%s", r.cell(signedText(d.Diff, m.Unit), 11, ""))
			interval := "too few"
			if d.HasInterval {
				interval = intervalText(d.Low, d.High, m.Unit)
			}
			r.printf("%s%s%s", r.cell(interval, 17, ""), r.cell(pText(d.P), 6, ""), r.cell(fmt.Sprintf("%+.2f", d.Delta), 6, ""))
		}
		r.printf("\n")
	}
}

// sideCell marks the side that may be called smaller.
func (r *reporter) sideCell(m Metric, side int, s *Side, width int) string {
	switch {
	case s == nil:
		return r.cell("-", width, "")
	case m.Smaller == side:
		return r.cell("*"+quantityText(s.Median, m.Unit), width, green)
	default:
		return r.cell(quantityText(s.Median, m.Unit), width, "")
	}
}

// steps shows where the time goes: per side, without comparing unlike steps.
func (r *reporter) steps() {
	rows := r.rows(kindStep)
	if len(rows) == 0 {
		return
	}
	r.printf("\n%s\n", r.paint(bold, "Where it goes: time since the phase before, median (min..max)"))
	r.printf("%-12s%s%s\n", "", r.cell(r.names[0], 34, ""), r.cell(r.names[1], 34, ""))
	for _, m := range rows {
		r.printf("%-12s", clip(title(m.Name), 12))
		for _, s := range m.Sides {
			text := "-"
			if s != nil {
				text = fmt.Sprintf("%s (%s)", quantityText(s.Median, m.Unit), rangeText(s.Min, s.Max, m.Unit))
			}
			r.printf("%s", r.cell(text, 34, ""))
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

// verdictPhases are the moments a user waits for.
var verdictPhases = []workload.Phase{workload.PhaseWorkload, workload.PhaseFirstByte, workload.PhaseTornDown}

func (r *reporter) verdicts() {
	var lines []string
	for _, m := range append(r.rows(kindReached), r.rows(kindCPU)...) {
		for _, p := range verdictPhases {
			if m.Name == p.String() {
				lines = append(lines, r.verdict(m))
			}
		}
		if m.Kind == kindCPU {
			lines = append(lines, r.verdict(m))
		}
	}
	if len(lines) > 0 {
		r.printf("\n")
	}
	for _, l := range lines {
		if l != "" {
			r.text(l)
		}
	}
	if r.doc.Summary.SameOutput {
		r.text("Every sample wrote the same bytes to stdout.")
	} else if len(r.rows(kindReached)) > 0 {
		r.text("The samples did not all write the same bytes to stdout.")
	}
}

func (r *reporter) verdict(m Metric) string {
	d, name := m.Difference, strings.ToUpper(title(m.Name)[:1])+title(m.Name)[1:]
	switch {
	case d == nil:
		return ""
	case !d.HasInterval:
		return fmt.Sprintf("%s: too few samples to say which is less.", name)
	case m.Smaller >= 0:
		return fmt.Sprintf("%s: %s is less, by %s (95%% interval %s, noise floor %s).", name, r.names[m.Smaller],
			quantityText(max(d.Diff, -d.Diff), m.Unit), intervalText(d.Low, d.High, m.Unit), quantityText(d.Floor, m.Unit))
	case d.Low <= 0 && d.High >= 0:
		return fmt.Sprintf("%s: no difference shown, the interval holds zero (%s).", name, intervalText(d.Low, d.High, m.Unit))
	default:
		return fmt.Sprintf("%s: no difference shown, %s is within the noise floor of %s.", name,
			signedText(d.Diff, m.Unit), quantityText(d.Floor, m.Unit))
	}
}

// failures names every failed sample, and says where outliers are.
func (r *reporter) failures() {
	sum := &r.doc.Summary
	if n := sum.Failed[0] + sum.Failed[1]; n > 0 {
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

func (r *reporter) isolation() {
	st := r.doc.Summary.Isolation
	if st == nil {
		return
	}
	r.printf("\n%s\n", r.paint(bold, "What a program inside sees and may do (tried once, harmlessly)"))
	const left, width = 18, 31
	r.printf("%-*s%-*s%s\n", left, "", width, r.names[0], r.names[1])
	for _, name := range findingNames(st) {
		r.printf("%-*s", left, clip(name, left-1))
		for side, s := range st.Sides {
			text := "-"
			if f := find(s.Findings, name); f != nil {
				text = f.String()
			}
			text = clip(text, width-1)
			if side == 0 {
				text = fmt.Sprintf("%-*s", width, text)
			}
			r.printf("%s", text)
		}
		r.printf("\n")
	}
	for side, s := range st.Sides {
		if s.Error != "" {
			r.text(fmt.Sprintf("The probe failed in %s: %s", r.names[side], s.Error))
		}
	}
}

func findingNames(st *Study) []string {
	for _, s := range st.Sides {
		if len(s.Findings) > 0 {
			var names []string
			for _, f := range s.Findings {
				names = append(names, f.Name)
			}
			return names
		}
	}
	return nil
}

func find(list []isolation.Finding, name string) *isolation.Finding {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

func clip(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:width-2]) + ".."
	}
	return s
}
