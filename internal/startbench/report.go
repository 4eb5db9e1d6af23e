package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/duplex-run/duplex/compare/stats"
)

// results is everything that was measured; -json writes it.
type results struct {
	Kernel   string            `json:"kernel"`
	Hybrid   bool              `json:"cgroup_v2_unmounted"`
	Seccomp  bool              `json:"seccomp"`
	Seed     uint64            `json:"seed"`
	Parallel int               `json:"parallel"`
	Engines  []string          `json:"engines"`
	Versions map[string]string `json:"versions"`
	// By engine:
	Samples map[string][]sample        `json:"samples"`
	Many    map[string][]time.Duration `json:"parallel_ns"`
	Costs   map[string]cost            `json:"costs"`
}

// peers are what the ratios are taken to.
var peers = []string{crunRun, runcRun, bwrapRun}

func (r *results) report(w io.Writer) error {
	fmt.Fprintf(w, "Linux %s, seed %d", r.Kernel, r.Seed)
	if r.Hybrid {
		fmt.Fprint(w, ", cgroup v2 unmounted for all engines (Debian 12's crun refuses a host with both kinds)")
	}
	if !r.Seccomp {
		fmt.Fprint(w, ", no seccomp profile")
	}
	fmt.Fprintln(w)
	for _, e := range r.Engines {
		fmt.Fprintf(w, "%s: %s\n", e, r.Versions[e])
	}
	if err := r.table(w, "One container, from fork to the end, wall time", func(e string) []float64 {
		return milliseconds(r.Samples[e], func(s sample) time.Duration { return s.Wall })
	}); err != nil {
		return err
	}
	if err := r.table(w, "Processor time of one container", func(e string) []float64 {
		return milliseconds(r.Samples[e], func(s sample) time.Duration { return s.CPU })
	}); err != nil {
		return err
	}
	if r.Parallel > 0 {
		title := fmt.Sprintf("%d containers at once, wall time until the last has ended", r.Parallel)
		if err := r.table(w, title, func(e string) []float64 {
			return milliseconds(r.Many[e], func(d time.Duration) time.Duration { return d })
		}); err != nil {
			return err
		}
	}
	return r.costs(w)
}

func milliseconds[T any](list []T, of func(T) time.Duration) []float64 {
	out := make([]float64, len(list))
	for i, v := range list {
		out[i] = float64(of(v)) / float64(time.Millisecond)
	}
	return out
}

// table writes the medians and their ratios to the peers', with 95% intervals.
func (r *results) table(w io.Writer, title string, of func(string) []float64) error {
	fmt.Fprintf(w, "\n%s, median in ms, and ratios to it with 95%% intervals\n", title)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\tn\tmedian\t%s\n", strings.Join(peers, "\t"))
	for _, e := range r.Engines {
		x := of(e)
		if len(x) == 0 {
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%.2f", e, len(x), stats.Median(x))
		for _, p := range peers {
			y := of(p)
			switch {
			case e == p || len(y) == 0:
				fmt.Fprint(t, "\t-")
			case min(len(x), len(y)) < stats.MinSamples:
				fmt.Fprintf(t, "\t%.2f (too few)", stats.Median(x)/stats.Median(y))
			default:
				ratio, low, high := stats.Ratio(x, y, r.Seed)
				fmt.Fprintf(t, "\t%.2f (%.2f to %.2f)", ratio, low, high)
			}
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func (r *results) costs(w io.Writer) error {
	fmt.Fprintf(w, "\nLargest process of the engine, and system calls and execve of all its processes, counted apart\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\tpeak MiB\tsystem calls\texecve\n")
	for _, e := range r.Engines {
		c := r.Costs[e]
		fmt.Fprintf(t, "%s\t%.1f\t%d\t%d\n", e, float64(c.Peak)/(1<<20), c.Calls, c.Execs)
	}
	return t.Flush()
}
