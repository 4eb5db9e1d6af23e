package cli

import (
	"context"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/runs"
)

var inspectCommand = command{
	name:    "inspect",
	args:    "RUN...",
	summary: "Say what is known of runs, as JSON",
	run:     runInspect,
}

// inspected is a record with what follows from it.
type inspected struct {
	runs.Record
	State string `json:"state"`
	// Status is the exit status of a run that has ended.
	Status *int `json:"status,omitempty"`
}

func inspect(r runs.Record) inspected {
	i := inspected{Record: r, State: r.State()}
	if i.State == "exited" {
		n := r.Status()
		i.Status = &n
	}
	return i
}

func runInspect(_ context.Context, a *app, args []string) error {
	fs := a.Flags()
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return a.Usage("no run given")
	}
	out := []inspected{}
	for _, ref := range fs.Args() {
		r, err := a.find(ref, false)
		if err != nil {
			return err
		}
		out = append(out, inspect(r))
	}
	return cmdline.PrintJSON(a.Out, out)
}
