package bootreport

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/duplex-run/duplex/internal/workload"
)

// Style says how text is laid out.
type Style struct {
	// Width in columns; less than MinWidth is MinWidth.
	Width  int
	Colour bool
}

// MinWidth is the narrowest report, DefaultWidth that of one for no terminal.
const (
	MinWidth     = 72
	DefaultWidth = 100
)

// Colours of the groups on a terminal.
var groupColours = map[string]string{
	GroupHost: "\x1b[34m", GroupKernel: "\x1b[33m", GroupAgent: "\x1b[35m", GroupCommand: "\x1b[32m",
}

const (
	bold  = "\x1b[1m"
	reset = "\x1b[0m"
)

// WriteText writes the report for people.
func WriteText(out io.Writer, d *Document, s Style) error {
	s.Width = max(s.Width, MinWidth)
	t := &text{doc: d, style: s}
	t.head()
	t.boots()
	t.waterfall()
	t.kernel()
	t.exits()
	t.bytes()
	t.advice()
	for _, n := range d.Notes {
		t.paragraph("", n)
	}
	if _, err := io.WriteString(out, t.b.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

type text struct {
	b     strings.Builder
	doc   *Document
	style Style
}

func (t *text) printf(format string, args ...any) { fmt.Fprintf(&t.b, format, args...) }

func (t *text) paint(code, s string) string {
	if !t.style.Colour || code == "" {
		return s
	}
	return code + s + reset
}

func (t *text) title(s string) { t.printf("\n%s\n", t.paint(bold, s)) }

// paragraph writes s wrapped, each further line indented like the first one's
// prefix.
func (t *text) paragraph(prefix, s string) {
	indent := utf8.RuneCountInString(prefix)
	for i, line := range wrap(s, t.style.Width-indent) {
		if i > 0 {
			prefix = strings.Repeat(" ", indent)
		}
		t.printf("%s%s\n", prefix, line)
	}
}

// cut is s in at most n columns.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(n-1, 0)]) + "…"
}

// pad is s in exactly n columns.
func pad(s string, n int) string {
	s = cut(s, n)
	return s + strings.Repeat(" ", n-utf8.RuneCountInString(s))
}

func (t *text) head() {
	d := t.doc
	t.printf("%s\n", t.paint(bold, cut(headline(d), t.style.Width)))
	if l := d.Host.Lab; l != nil {
		t.paragraph("", fmt.Sprintf("Not on this host: %s.", strings.TrimSuffix(l.Why, ".")))
	}
	t.paragraph("", hostLine(d))
}

// headline says what was booted.
func headline(d *Document) string {
	what := d.Image.Ref
	if len(d.Command) > 0 {
		what += " " + strings.Join(d.Command, " ")
	}
	if d.Warm {
		return "Where the start of a restored microVM goes: " + clean(what)
	}
	return "Where the start of a microVM goes: " + clean(what)
}

// hostLine says where, and what its clock is.
func hostLine(d *Document) string {
	h := fmt.Sprintf("%s, %d CPUs, Linux %s", clean(d.Host.CPU), d.Host.CPUs, clean(d.Host.Kernel))
	switch l := d.Host.Lab; {
	case l == nil:
		return "Host: " + h + "."
	case l.Deterministic:
		return "Host: the lab, " + h + "; its clock counts instructions, 2 ns each."
	}
	return "Host: the lab, " + h + "; times are an emulated CPU's."
}

func endName(d *Document) string {
	if d.End == workload.PhaseFirstByte.String() {
		return "the command's first byte"
	}
	return "the command's end"
}

// adviceTime is the figure, marked where it is the guest's.
func adviceTime(a Advice) string {
	if a.Clock == GuestClock {
		return "~" + took(a.Ns)
	}
	return took(a.Ns)
}

func adviceText(a Advice) string { return fmt.Sprintf("%s (%s.)", a.Text, a.Figure) }

// clean is text from outside on one line.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// boots is the table of the three boots.
func (t *text) boots() {
	t.title("Three boots, time from exec of duplex, and what looking cost")
	observed, again := t.doc.boot(Observed), t.doc.boot(Again)
	t.printf("%-31s %9s %9s %9s %10s\n", "until", "first", "observed", "again", "looking")
	row := func(name string, value func(*Boot) string, cost string) {
		line := fmt.Sprintf("%-31s", name)
		for _, kind := range []string{First, Observed, Again} {
			line += fmt.Sprintf(" %9s", value(t.doc.boot(kind)))
		}
		t.printf("%s\n", strings.TrimRight(line+cost, " "))
	}
	for p := workload.PhaseImage; p <= workload.PhaseExited; p++ {
		name := p.String()
		if _, ok := observed.PhasesNs[name]; !ok || p > workload.PhaseWorkload && name != t.doc.End {
			continue
		}
		cost := ""
		if a, ok := again.PhasesNs[name]; ok {
			cost = fmt.Sprintf(" %10s", signed(observed.PhasesNs[name]-a))
		}
		label := reached[name]
		if r, ok := reachedWarm[name]; ok && t.doc.Warm {
			label = r
		}
		row(label, func(b *Boot) string {
			if ns, ok := b.PhasesNs[name]; ok {
				return took(ns)
			}
			return "-"
		}, cost)
	}
	row("page faults, minor", func(b *Boot) string { return fmt.Sprint(b.Minor) }, "")
	row("page faults, major (from disk)", func(b *Boot) string { return fmt.Sprint(b.Major) }, "")
	row("CPU time of duplex and monitor", func(b *Boot) string { return took(b.CPUNs) }, "")
}

// reached names the moments in the table of the boots.
var reached = map[string]string{
	"image": "image, kernel, initramfs found", "created": "VM created", "loaded": "kernel in memory",
	"entered": "guest entered", "kernel_up": "kernel up, agent runs", "workload": "command executed",
	"first_byte": "its first byte", "exited": "its end (it wrote nothing)",
}

// reachedWarm names those of a restored machine that are something else.
var reachedWarm = map[string]string{"loaded": "memory and devices restored", "kernel_up": "agent goes on"}

func signed(ns int64) string {
	if ns < 0 {
		return "-" + took(-ns)
	}
	return "+" + took(ns)
}

func (d *Document) boot(kind string) *Boot {
	for i := range d.Boots {
		if d.Boots[i].Kind == kind {
			return &d.Boots[i]
		}
	}
	return &Boot{}
}

// waterfall draws the spans.
func (t *text) waterfall() {
	t.title(fmt.Sprintf("The observed boot, %s to %s", took(t.doc.TotalNs), endName(t.doc)))
	const columns = 9 + 10 + 8 + 6 + 7 + 1
	name := min(44, (t.style.Width-columns)*3/5)
	bar := t.style.Width - columns - name - 1
	t.printf("%9s%10s%8s%6s%7s %s\n", "at", "took", "exits", "out", "faults", "(~: guest's clock)")
	for _, s := range t.doc.Spans {
		exits, out, faults := "", "", ""
		if s.KVM != nil && s.KVM.Exits > 0 {
			exits = fmt.Sprint(s.KVM.Exits)
		}
		if s.Exits > 0 {
			out = fmt.Sprint(s.Exits)
		}
		if s.Faults != nil && s.Faults.Minor+s.Faults.Major > 0 {
			faults = fmt.Sprint(s.Faults.Minor + s.Faults.Major)
		}
		guest := ""
		if s.Clock == GuestClock {
			guest = "~"
		}
		label := pad(strings.Repeat("  ", s.Depth)+s.Name, name)
		if s.Depth == 0 {
			label = t.paint(bold, label)
		}
		line := fmt.Sprintf("%9s%10s%8s%6s%7s %s %s", took(s.StartNs), guest+took(s.Took()), exits, out, faults, label,
			t.paint(groupColours[s.Group], bars(s.StartNs, s.EndNs, t.doc.TotalNs, bar)))
		t.printf("%s\n", strings.TrimRight(line, " "))
	}
	t.paragraph("", "exits: all of the guest's, as KVM counts them; out: those that the monitor handled; faults: page faults of the monitor, guest memory included.")
}

// eighths are the left parts of a full block.
var eighths = []string{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"}

// bars draws from..to of total in width columns. Its start is rounded down to a
// column, its length to an eighth of one; what is too short is the thinnest line.
func bars(from, to, total int64, width int) string {
	if total <= 0 || width <= 0 {
		return ""
	}
	scale := func(ns int64) int64 { return int64(float64(ns) / float64(total) * float64(width) * 8) }
	a, b := scale(from), scale(to)
	column := min(a/8, int64(width)-1)
	length := min(max(b-a, 1), (int64(width)-column)*8)
	return strings.Repeat(" ", int(column)) + strings.Repeat("█", int(length/8)) + eighths[length%8]
}

// kernelRows is how many initcalls the text lists.
const kernelRows = 12

func (t *text) kernel() {
	k := t.doc.Kernel
	if k.Lines == 0 {
		return
	}
	t.title("The guest's kernel, by its own log")
	behind := ""
	if k.BehindNs > 0 {
		behind = fmt.Sprintf(" and lost %s, the kernel says, until it trusted what it is made of", took(k.BehindNs))
	}
	t.paragraph("", fmt.Sprintf("Of %s that the host saw from the first entry to the agent, the log covers %s: its clock starts later%s. From the agent's first step to its last the host's clock counted %s and the guest's %s.",
		took(k.SeenNs), took(k.LogNs), behind, took(k.Clock.HostNs), took(k.Clock.GuestNs)))
	if k.Count == 0 {
		return
	}
	t.paragraph("", fmt.Sprintf("%d initcalls of the kernel took %s together. What its other threads do meanwhile counts for the initcall it falls into, and early on the clock moves in ticks. The costliest, those of modules too:", k.Count, took(k.InitcallsNs)))
	for i, c := range k.Initcalls {
		if i == kernelRows {
			t.printf("%10s  and %d more\n", "", len(k.Initcalls)-kernelRows)
			break
		}
		t.printf("%10s  %s\n", took(c.TookNs), cut(strings.TrimRight(fmt.Sprintf("%-34s %s", c.Name, c.Owner), " "), t.style.Width-12))
	}
}

func (t *text) exits() {
	if k := t.doc.KVM; k.Exits > 0 {
		t.title("Exits until the command was executed, by KVM's count")
		cost := ""
		if t.doc.ExitNs > 0 {
			cost = fmt.Sprintf(" One that KVM handles by itself takes %s here.", took(t.doc.ExitNs))
		}
		t.paragraph("", fmt.Sprintf("%d in all: %d because guest memory was not mapped yet, %d for interrupts of the host, %d halts, in which the guest was idle for %s. KVM carried out %d instructions in place of the processor.%s",
			k.Exits, k.MemoryFaults, k.Interrupts, k.Halts, took(k.IdleNs), k.Emulated, cost))
	}
	t.title("Exits to the monitor until the end, by device")
	t.printf("%8s %12s %12s\n", "exits", "handled in", "each")
	for _, e := range t.doc.Exits {
		t.printf("%8d %12s %12s  %s\n", e.Exits, took(int64(e.HostNs)), took(int64(e.HostNs/max(e.Exits, 1))), e.Device)
	}
}

func (t *text) bytes() {
	b := t.doc.boot(Observed)
	t.title("Bytes")
	for _, r := range []struct {
		name  string
		bytes int64
	}{
		{"kernel put into guest memory", b.Bytes["kernel"]},
		{"initramfs put into guest memory", b.Bytes["initrd"]},
		{"read by the guest from its disk, to the end", b.Bytes["disk_read"]},
		{"guest memory the host had to back, at the end", b.Memory["guest_rss"]},
		{"read from the host's disks by the first boot", t.doc.boot(First).ReadBytes},
	} {
		t.printf("%10s  %s\n", size(r.bytes), r.name)
	}
}

func (t *text) advice() {
	t.title("What would make it quicker, at most by how much")
	if len(t.doc.Advice) == 0 {
		t.paragraph("", "Nothing takes 1% of the boot and is known to be avoidable.")
	}
	for _, a := range t.doc.Advice {
		t.paragraph(fmt.Sprintf("%10s  ", adviceTime(a)), adviceText(a))
	}
	if len(t.doc.Advice) > 0 {
		t.paragraph("", "These are times of the observed boot; they may overlap, and doing without one may make another longer.")
	}
	t.printf("\n")
}
