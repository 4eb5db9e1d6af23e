package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/runs"
)

var stopCommand = command{
	name:    "stop",
	args:    "RUN...",
	summary: "End runs: TERM, and KILL after a while",
	run:     runStop,
}

var killCommand = command{
	name:    "kill",
	args:    "RUN...",
	summary: "Send runs a signal, KILL by default",
	run:     runKill,
}

var waitCommand = command{
	name:    "wait",
	args:    "RUN...",
	summary: "Wait until runs have ended, and print their exit statuses",
	run:     runWait,
}

var rmCommand = command{
	name:    "rm",
	args:    "RUN...",
	summary: "Forget detached runs that have ended",
	run:     runRm,
}

func runStop(ctx context.Context, a *app, args []string) error {
	fs := a.Flags()
	grace := fs.IntP("time", "t", 10, "`SECONDS` until KILL")
	fs.SetInterspersed(true)
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if *grace < 0 {
		return a.Usage("--time=%d: negative", *grace)
	}
	return a.each(fs.Args(), func(r runs.Record) error {
		if r.State() == "exited" {
			return nil
		}
		return end(ctx, r, unix.SIGTERM, time.Duration(*grace)*time.Second)
	})
}

// end signals a run and waits for its end, with KILL when grace is over.
func end(ctx context.Context, r runs.Record, sig unix.Signal, grace time.Duration) error {
	gone, err := sendSignal(ctx, r, sig)
	if err != nil {
		return err
	}
	if gone {
		if r.State() == "created" && r.PID > 0 {
			_ = unix.Kill(r.PID, unix.SIGTERM) // it does not listen yet: it unwinds
		}
		_, err := endsWithin(ctx, r, killGrace)
		return err
	}
	if over, err := endsWithin(ctx, r, grace); over || err != nil {
		return err
	}
	if gone, err := sendSignal(ctx, r, unix.SIGKILL); gone || err != nil {
		return err
	}
	if over, err := endsWithin(ctx, r, killGrace); over || err != nil {
		return err
	}
	// A guest that hangs: its monitor goes with its parent.
	if err := unix.Kill(r.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", r.PID, err)
	}
	_, err = endsWithin(ctx, r, killGrace)
	return err
}

// killGrace is how long a killed workload's run may take to end.
const killGrace = 10 * time.Second

// sendSignal says whether the run was gone.
func sendSignal(ctx context.Context, r runs.Record, sig unix.Signal) (gone bool, err error) {
	_, err = runs.Ask(ctx, r.ID, &runs.Message{Type: runs.Signal, Number: int(sig)})
	if errors.Is(err, runs.ErrNotRunning) || errors.Is(err, runs.ErrLost) {
		return true, nil
	}
	return false, err
}

// endsWithin says whether a run ends in that time.
func endsWithin(ctx context.Context, r runs.Record, d time.Duration) (bool, error) {
	limited, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	_, err := runs.AwaitEnd(limited, r.ID)
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case limited.Err() != nil && errors.Is(err, context.DeadlineExceeded):
		return false, nil
	}
	return true, nil // however it did
}

func runKill(ctx context.Context, a *app, args []string) error {
	fs := a.Flags()
	name := fs.StringP("signal", "s", "KILL", "`SIGNAL` to send, a name or a number")
	fs.SetInterspersed(true)
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	sig, err := cmdline.ParseSignal(*name)
	if err != nil {
		return a.Usage("--signal: %v", err)
	}
	return a.each(fs.Args(), func(r runs.Record) error {
		if r.State() != "running" {
			return runs.ErrNotRunning
		}
		gone, err := sendSignal(ctx, r, sig)
		if gone {
			return runs.ErrNotRunning
		}
		return err
	})
}

func runWait(ctx context.Context, a *app, args []string) error {
	fs := a.Flags()
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return a.Usage("no run given")
	}
	var errs []error
	for _, ref := range fs.Args() {
		r, err := a.find(ref, false)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		exit, err := runs.AwaitEnd(ctx, r.ID)
		if err != nil {
			errs = append(errs, a.about(r, err))
			continue
		}
		_, _ = fmt.Fprintln(a.Out, exit.Status())
	}
	return first(a, errs)
}

func runRm(ctx context.Context, a *app, args []string) error {
	fs := a.Flags()
	force := fs.BoolP("force", "f", false, "kill those that run")
	fs.SetInterspersed(true)
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	return a.each(fs.Args(), func(r runs.Record) error {
		if *force && r.State() != "exited" {
			if err := end(ctx, r, unix.SIGKILL, killGrace); err != nil {
				return err
			}
		}
		return runs.Remove(r.ID)
	})
}
