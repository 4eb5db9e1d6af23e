package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/term"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/runs"
	"github.com/duplex-run/duplex/internal/workload"
)

var statsCommand = command{
	name:    "stats",
	args:    "[RUN...]",
	summary: "Show what runs use, once a second",
	run:     runStats,
}

// statsEvery is the time between two samples: what CPU use is measured over.
const statsEvery = time.Second

// usage is what stats shows of one run.
type usage struct {
	ID        string             `json:"id"`
	Name      string             `json:"name,omitempty"`
	Isolation workload.Isolation `json:"isolation"`
	// CPUPercent is of one CPU, over the last second; nil when it is not known.
	CPUPercent *float64 `json:"cpu_percent"`
	workload.Stats
	// MemoryIs says what is counted.
	MemoryIs string `json:"memory_is"`
	Error    string `json:"error,omitempty"`
}

// memoryIs says what the memory of each isolation is.
var memoryIs = map[workload.Isolation]string{
	workload.VM:        "guest memory in use of the host's, and the monitor",
	workload.Container: "cgroup, without page cache that is not in use",
}

func runStats(ctx context.Context, a *app, args []string) error {
	fs := a.Flags()
	once := fs.Bool("no-stream", false, "print one sample")
	asJSON := fs.Bool("json", false, "print JSON, a sample a line")
	raw := fs.Bool("sample", false, "")
	_ = fs.MarkHidden("sample") // for duplex's own use
	fs.SetInterspersed(true)
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if *raw && fs.NArg() == 1 {
		return a.rawSample(ctx, fs.Arg(0))
	}
	before, err := a.sample(ctx, fs.Args())
	if err != nil {
		return err
	}
	at := time.Now()
	for {
		select {
		case <-time.After(statsEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
		now, err := a.sample(ctx, fs.Args())
		if err != nil {
			return err
		}
		step := time.Since(at)
		at = time.Now()
		list := compareSamples(before, now, step)
		if err := a.showStats(list, *asJSON, *once); err != nil || *once {
			return err
		}
		before = now
	}
}

// rawSample prints what one run uses at this moment, as JSON.
func (a *app) rawSample(ctx context.Context, ref string) error {
	awaitRun(ctx, ref)
	r, err := a.find(ref, true)
	if err != nil {
		return err
	}
	m, err := runs.Ask(ctx, r.ID, &runs.Message{Type: runs.Stats})
	if err != nil {
		return a.about(r, err)
	}
	return cmdline.PrintJSON(a.Out, m.Stats)
}

// sample asks the runs that refs name, or all that run.
func (a *app) sample(ctx context.Context, refs []string) ([]usage, error) {
	var list []runs.Record
	if len(refs) == 0 {
		all, err := runs.List()
		if err != nil {
			return nil, a.about(runs.Record{}, err)
		}
		for _, r := range all {
			if r.State() == "running" {
				list = append(list, r)
			}
		}
	}
	for _, ref := range refs {
		r, err := a.find(ref, true)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	out := make([]usage, len(list))
	var all sync.WaitGroup
	for i, r := range list {
		all.Go(func() {
			out[i] = usage{ID: r.ID, Name: r.Name, Isolation: r.Isolation, Stats: workload.NoStats(), MemoryIs: memoryIs[r.Isolation]}
			m, err := runs.Ask(ctx, r.ID, &runs.Message{Type: runs.Stats})
			if err != nil {
				out[i].Error = err.Error()
			} else if m.Stats != nil {
				out[i].Stats = *m.Stats
			}
		})
	}
	all.Wait()
	if len(refs) == 1 && out[0].Error != "" {
		_, err := runs.Ask(ctx, list[0].ID, &runs.Message{Type: runs.Stats})
		return nil, a.about(list[0], firstError(err, errors.New(out[0].Error)))
	}
	return out, ctx.Err()
}

func firstError(list ...error) error {
	for _, err := range list {
		if err != nil {
			return err
		}
	}
	return nil
}

// compareSamples gives now the CPU use since before.
func compareSamples(before, now []usage, step time.Duration) []usage {
	cpu := map[string]int64{}
	for _, u := range before {
		cpu[u.ID] = u.CPUNs
	}
	for i := range now {
		was, ok := cpu[now[i].ID]
		if ok && was != workload.Unknown && now[i].CPUNs != workload.Unknown {
			p := 100 * float64(max(now[i].CPUNs-was, 0)) / float64(step)
			now[i].CPUPercent = &p
		}
	}
	return now
}

func (a *app) showStats(list []usage, asJSON, once bool) error {
	if asJSON {
		return cmdline.PrintJSON(a.Out, list)
	}
	if f, ok := a.Out.(*os.File); ok && !once && term.IsTerminal(int(f.Fd())) {
		_, _ = fmt.Fprint(a.Out, "\x1b[H\x1b[J")
	}
	return printStats(a.Out, list)
}

func printStats(w io.Writer, list []usage) error {
	tw := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	_, _ = fmt.Fprintln(tw, "ID\tNAME\tISOLATION\tCPU %\tMEM USAGE / LIMIT\tMEM %\tNET I/O\tBLOCK I/O\tPIDS")
	machines := false
	for _, u := range list {
		machines = machines || u.Isolation == workload.VM
		cpu, share := "-", "-"
		if u.CPUPercent != nil {
			cpu = fmt.Sprintf("%.2f%%", *u.CPUPercent)
		}
		if u.Memory >= 0 && u.MemoryLimit > 0 {
			share = fmt.Sprintf("%.2f%%", 100*float64(u.Memory)/float64(u.MemoryLimit))
		}
		pids := count(u.Pids)
		if u.PidsLimit >= 0 {
			pids += " / " + count(u.PidsLimit)
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", u.ID[:min(shortDigest, len(u.ID))], runcli.FirstOf(u.Name, "-"), u.Isolation, cpu,
			pair(u.Memory, u.MemoryLimit, units.BytesSize), share,
			pair(u.NetworkIn, u.NetworkOut, units.HumanSize), pair(u.BlockRead, u.BlockWritten, units.HumanSize), pids)
	}
	if machines {
		_, _ = fmt.Fprintf(tw, "Memory of a microVM is %s.\n", memoryIs[workload.VM])
	}
	return tw.Flush()
}

func count(n int64) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// pair is two sizes, or "-" for those that are not known.
func pair(a, b int64, size func(float64) string) string {
	parts := []string{"-", "-"}
	for i, n := range []int64{a, b} {
		if n >= 0 {
			parts[i] = size(float64(n))
		}
	}
	return strings.Join(parts, " / ")
}
