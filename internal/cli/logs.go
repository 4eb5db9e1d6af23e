package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/duplex-run/duplex/internal/runs"
	"github.com/duplex-run/duplex/internal/workload"
)

var logsCommand = command{
	name:    "logs",
	args:    "RUN",
	summary: "Print what a detached run has written",
	run:     runLogs,
}

func runLogs(ctx context.Context, a *app, args []string) error {
	fs := a.Flags()
	follow := fs.BoolP("follow", "f", false, "go on until the run has ended")
	tail := fs.StringP("tail", "n", "all", "print the last `N` lines only")
	fs.SetInterspersed(true)
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	lines := -1
	if *tail != "all" {
		n, err := strconv.Atoi(*tail)
		if err != nil || n < 0 {
			return a.Usage("--tail=%s: want a number of lines, or all", *tail)
		}
		lines = n
	}
	if fs.NArg() != 1 {
		return a.Usage("want one run, got %d", fs.NArg())
	}
	r, err := a.find(fs.Arg(0), false)
	if err != nil {
		return err
	}
	if err := a.detachedOnly(r, "'duplex run -d' keeps a log."); err != nil {
		return err
	}
	err = runs.Log(ctx, r.ID, lines, *follow, a.Out, a.Err)
	if errors.Is(err, os.ErrNotExist) {
		err = nil // it has not written anything yet
	}
	return a.about(r, err)
}

// detachedOnly refuses a run in the foreground, whose workload has the streams of
// who started it: duplex does not see what goes through them.
func (a *app) detachedOnly(r runs.Record, remedy string) error {
	if r.Detached {
		return nil
	}
	return &workload.Error{Op: a.Cmd.Name, Err: fmt.Errorf("%s is in the foreground: it has the streams of who started it", nameOf(r)), Remedy: remedy}
}
