package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/runs"
)

var psCommand = command{
	name:    "ps",
	summary: "List the runs of this user",
	run:     runPs,
}

func runPs(_ context.Context, a *app, args []string) error {
	fs := a.Flags()
	all := fs.BoolP("all", "a", false, "list those that have ended too")
	quiet := fs.BoolP("quiet", "q", false, "print the ids only")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return a.Usage("want no arguments, got %q", fs.Arg(0))
	}
	list, err := runs.List()
	if err != nil {
		return a.about(runs.Record{}, err)
	}
	shown := []inspected{}
	for _, r := range list {
		if *all || r.State() == "running" {
			shown = append(shown, inspect(r))
		}
	}
	switch {
	case *asJSON:
		return cmdline.PrintJSON(a.Out, shown)
	case *quiet:
		for _, r := range shown {
			_, _ = fmt.Fprintln(a.Out, r.ID)
		}
		return nil
	}
	return printRuns(a.Out, shown, time.Now())
}

func printRuns(w io.Writer, list []inspected, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	_, _ = fmt.Fprintln(tw, "ID\tNAME\tISOLATION\tIMAGE\tCOMMAND\tCREATED\tSTATUS")
	for _, r := range list {
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s ago\t%s\n", r.ID[:min(shortDigest, len(r.ID))], runcli.FirstOf(r.Name, "-"), r.Isolation,
			clipped(r.Image, 32), clipped(strings.Join(r.Argv, " "), 24), age(now.Sub(r.Created)), status(r.Record, now))
	}
	return tw.Flush()
}

// status says in words where a run is, as docker does.
func status(r runs.Record, now time.Time) string {
	switch r.State() {
	case "created":
		return "Created"
	case "running":
		return "Up " + age(now.Sub(r.Started))
	}
	s := fmt.Sprintf("Exited (%d) %s ago", r.Status(), age(now.Sub(r.Finished)))
	switch {
	case r.Exit != nil && r.Exit.OOM:
		s += ", out of memory"
	case r.Exit != nil && r.Exit.TimedOut:
		s += ", timed out"
	case r.Error != "":
		s += ", failed"
	}
	return s
}

func age(d time.Duration) string { return units.HumanDuration(max(d, 0)) }

// clipped is one line of n characters at most, and printable.
func clipped(s string, n int) string {
	runes := []rune(strings.Map(func(r rune) rune {
		if r < ' ' || r == 127 {
			return '?'
		}
		return r
	}, s))
	if len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return string(runes)
}
