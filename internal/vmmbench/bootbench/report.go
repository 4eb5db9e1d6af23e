package bootbench

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/duplex-run/duplex/compare/stats"
)

// seed makes the intervals of the same records the same.
const seed = 4

// Report writes the tables of the records; title says what the times are.
func Report(w io.Writer, title string, records []Record) error {
	var b strings.Builder
	for _, r := range records {
		if r.Case == "" {
			fmt.Fprintln(&b, r.Text)
		}
	}
	fmt.Fprintf(&b, "\nFrom exec to user space, in a %s\n", title)
	table(&b, timeRows(records))
	fmt.Fprintf(&b, "\nRatios, with 95%% intervals where there are %d runs of each\n", stats.MinSamples)
	table(&b, ratioRows(records))
	_, err := io.WriteString(w, b.String())
	return err
}

func table(b *strings.Builder, rows [][]string) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		_, _ = fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	_ = t.Flush() // into memory
}

// steps are the columns of the table of times.
var steps = []struct{ title, step string }{
	{"entered", "entered"}, {"kernel up", "kernel_up"}, {"user space", Userspace}, {"workload", Workload}, {"first byte", FirstByte},
}

func timeRows(records []Record) [][]string {
	head := []string{"", "", "kernel"}
	for _, s := range steps {
		head = append(head, s.title)
	}
	rows := [][]string{append(head, "range", "runs")}
	for _, c := range Cases {
		end := Times(records, c, c.End())
		if len(end) == 0 {
			continue
		}
		row := []string{c.What, string(c.Monitor), string(c.Kernel)}
		for _, s := range steps {
			cell := "-"
			if t := Times(records, c, s.step); len(t) > 0 && (c.Monitor != Container || s.step != "kernel_up") {
				cell = ms(stats.Median(t))
			}
			row = append(row, cell)
		}
		rows = append(rows, append(row, ms(slices.Min(end))+" to "+ms(slices.Max(end)), fmt.Sprint(len(end))))
	}
	return rows
}

func ms(ns float64) string { return fmt.Sprintf("%.1f", ns/1e6) }

func ratioRows(records []Record) [][]string {
	rows := [][]string{{"duplex / other", "ratio", "95% interval", "must", "goal"}}
	for _, t := range Targets {
		ours, theirs := Times(records, t.Ours, t.Ours.End()), Times(records, t.Theirs, t.Theirs.End())
		if len(ours) == 0 || len(theirs) == 0 {
			continue
		}
		ratio := stats.Median(ours) / stats.Median(theirs)
		interval := "too few"
		if d := stats.Compare(logs(ours), logs(theirs), seed); d.HasInterval {
			interval = fmt.Sprintf("%.3f to %.3f", math.Exp(d.Low), math.Exp(d.High))
		}
		rows = append(rows, []string{t.Title, fmt.Sprintf("%.3f", ratio), interval, verdict(ratio, t.Must), verdict(ratio, t.Goal)})
	}
	return rows
}

// logs make a ratio a difference, which has an interval.
func logs(list []float64) []float64 {
	out := make([]float64, len(list))
	for i, v := range list {
		out[i] = math.Log(v)
	}
	return out
}

func verdict(ratio, target float64) string {
	switch {
	case target == 0:
		return ""
	case ratio <= target:
		return fmt.Sprintf("%.2f met", target)
	}
	return fmt.Sprintf("%.2f MISSED", target)
}
