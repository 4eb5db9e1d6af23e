package cli

import (
	"context"
	"fmt"

	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/runs"
)

var attachCommand = command{
	name:    "attach",
	args:    "RUN",
	summary: "Connect to the streams of a detached run; Ctrl-P Ctrl-Q leaves it",
	run:     runAttach,
}

func runAttach(ctx context.Context, a *app, args []string) error {
	fs := a.Flags()
	noStdin := fs.Bool("no-stdin", false, "do not connect stdin")
	fs.SetInterspersed(true)
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return a.Usage("want one run, got %d", fs.NArg())
	}
	r, err := a.find(fs.Arg(0), true)
	if err != nil {
		return err
	}
	if err := a.detachedOnly(r, "'duplex run -d' makes one to attach to; 'duplex exec' runs a further command in this one."); err != nil {
		return err
	}
	interactive := r.Interactive && !*noStdin
	if err := a.needsTerminal(r.TTY, interactive); err != nil {
		return err
	}
	size := runcli.WinSize(sizeFD(a))
	talk := &conversation{a: a, tty: r.TTY, interactive: interactive, detachable: true}
	exit, detached, err := talk.talk(ctx, r.ID, &runs.Message{Type: runs.Attach, Size: &size})
	switch {
	case err != nil:
		return a.about(r, err)
	case detached:
		_, _ = fmt.Fprintf(a.Err, "\nduplex: detached from %s\n", nameOf(r))
		return nil
	}
	return a.ended(exit)
}
