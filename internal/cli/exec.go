package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/runs"
	"github.com/duplex-run/duplex/internal/workload"
)

var execCommand = command{
	name:    "exec",
	args:    "RUN CMD [ARG...]",
	summary: "Run a further command in a running microVM or container",
	run:     runExec,
}

func runExec(ctx context.Context, a *app, args []string) error {
	fs := a.Flags()
	var c runs.Command
	fs.BoolVarP(&c.Interactive, "interactive", "i", false, "keep stdin open; without it the command reads end of file")
	fs.BoolVarP(&c.TTY, "tty", "t", false, "give the command a terminal")
	env := fs.StringArrayP("env", "e", nil, "set `KEY=VALUE`; KEY alone takes the caller's value")
	envFiles := fs.StringArray("env-file", nil, "read environment variables from `FILE`")
	fs.StringVarP(&c.Cwd, "workdir", "w", "", "working `DIR` of the command; default the run's")
	fs.StringVarP(&c.User, "user", "u", "", "run as `USER[:GROUP]`, by name or number; default the run's")
	fs.BoolVarP(&c.Detach, "detach", "d", false, "return once the command runs")
	await := fs.Bool("await", false, "")
	_ = fs.MarkHidden("await") // for duplex's own use: the run may be about to begin
	var others runcli.Refusals
	others.Register(fs, "privileged", "detach-keys")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if err := others.Check(a.App); err != nil {
		return err
	}
	switch {
	case fs.NArg() == 0:
		return a.Usage("no run given")
	case fs.NArg() == 1:
		return a.Usage("no command given")
	case c.Cwd != "" && !strings.HasPrefix(c.Cwd, "/"):
		return a.Usage("--workdir=%s: not an absolute path", c.Cwd)
	}
	if c.Detach {
		c.Interactive = false
	} else if err := a.needsTerminal(c.TTY, c.Interactive); err != nil {
		return err
	}
	if *await {
		awaitRun(ctx, fs.Arg(0))
	}
	r, err := a.find(fs.Arg(0), true)
	if err != nil {
		return err
	}
	c.Argv = fs.Args()[1:]
	if c.Env, err = runcli.ReadEnvFiles(*envFiles); err != nil {
		return err
	}
	c.Env = runcli.MergeEnv(c.Env, runcli.FromCaller(*env))
	if c.TTY {
		c.Size = runcli.WinSize(sizeFD(a))
	}
	talk := &conversation{a: a, tty: c.TTY, interactive: c.Interactive}
	if c.Detach {
		m, err := runs.Ask(ctx, r.ID, &runs.Message{Type: runs.Exec, Exec: &c})
		if err != nil || m.Exit == nil {
			return a.about(r, err)
		}
		return a.ended(*m.Exit)
	}
	exit, _, err := talk.talk(ctx, r.ID, &runs.Message{Type: runs.Exec, Exec: &c})
	if err != nil {
		return a.about(r, err)
	}
	return a.ended(exit)
}

// awaitRun waits a while for a run to have begun.
func awaitRun(ctx context.Context, ref string) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if r, err := runs.Find(ref); err == nil && r.State() != "created" {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// find is the run that ref names. With running it must run.
func (a *app) find(ref string, running bool) (runs.Record, error) {
	r, err := runs.Find(ref)
	if err != nil {
		return r, a.about(runs.Record{}, err)
	}
	if running && r.State() == "exited" {
		return r, &workload.Error{Op: a.Cmd.Name, Err: fmt.Errorf("%s is not running: it has ended", nameOf(r)), Remedy: "'duplex ps' lists what runs."}
	}
	return r, nil
}

// about makes err one of this command and of run r.
func (a *app) about(r runs.Record, err error) error {
	var own *workload.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &own):
		return &workload.Error{Op: a.Cmd.Name + ": " + own.Op, Err: own.Err, Remedy: own.Remedy, Status: own.Status}
	case r.ID == "":
		return &workload.Error{Op: a.Cmd.Name, Err: err}
	}
	return &workload.Error{Op: a.Cmd.Name + " " + nameOf(r), Err: err}
}

// nameOf is what people call a run.
func nameOf(r runs.Record) string { return runcli.FirstOf(r.Name, r.ID[:min(shortDigest, len(r.ID))]) }

// each does something to every run that refs name, goes on after a failure, and
// prints the name of each that it was done to.
func (a *app) each(refs []string, do func(runs.Record) error) error {
	if len(refs) == 0 {
		return a.Usage("no run given")
	}
	var errs []error
	for _, ref := range refs {
		r, err := a.find(ref, false)
		if err == nil {
			err = a.about(r, do(r))
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_, _ = fmt.Fprintln(a.Out, ref)
	}
	return first(a, errs)
}

// first returns the last of errs, and prints those before it.
func first(a *app, errs []error) error {
	for i, err := range errs {
		if i == len(errs)-1 {
			return err
		}
		a.finish(err)
	}
	return nil
}
