package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/docker/go-units"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/lab"
)

var labCommand = command{
	name:    "lab",
	summary: "Run a command on a machine whose KVM works",
	run: func(ctx context.Context, a *app, args []string) error {
		return a.group(ctx, []command{
			{name: "run", args: "-- CMD [ARG...]", summary: "Run CMD in an emulated machine of its own", run: runLab},
		}, args)
	},
}

// labOptions are the flags of `lab run`.
type labOptions struct {
	deterministic, interactive, tty, verbose bool
	env, carry                               []string
	memory, kernel                           string
	cpus                                     int
	timeout                                  time.Duration
}

func runLab(ctx context.Context, a *app, args []string) error {
	var o labOptions
	fs := a.Flags()
	fs.BoolVar(&o.deterministic, "deterministic", false, "count instructions instead of time, on one CPU")
	fs.StringArrayVar(&o.carry, "carry", nil, "carry the file or directory `PATH` in, and what changes in it out")
	fs.StringArrayVarP(&o.env, "env", "e", nil, "set `KEY=VALUE`; KEY alone takes the caller's value")
	fs.BoolVarP(&o.interactive, "interactive", "i", false, "keep stdin open")
	fs.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal")
	fs.StringVarP(&o.memory, "memory", "m", "2g", "memory of the machine: `SIZE`")
	fs.IntVarP(&o.cpus, "cpus", "c", 1, "number of `CPUS` of the machine")
	fs.DurationVar(&o.timeout, "timeout", 0, "end the command after `DURATION` from the start of the machine, status 124")
	fs.StringVar(&o.kernel, "kernel", "", "kernel of the machine: a `FILE`, or a name of 'duplex kernel ls'")
	fs.BoolVar(&o.verbose, "verbose", false, "print the machine's console and what its start took")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return a.Usage("no command")
	}
	opts, err := o.options(a, fs.Args())
	if err != nil {
		return err
	}
	rec := new(workload.Recorder)
	err = a.inLab(ctx, opts, rec)
	if o.verbose {
		a.labTimes(rec.Stamps())
	}
	return err
}

// labTimes prints how long each part of a lab run took.
func (a *app) labTimes(at map[string]int64) {
	parts := []struct {
		what     string
		from, to workload.Phase
	}{
		{"find kernel, pack files", workload.PhaseExec, workload.PhaseImage},
		{"start QEMU", workload.PhaseImage, workload.PhaseEntered},
		{"boot the kernel, load modules", workload.PhaseEntered, workload.PhaseKernelUp},
		{"mount root and carried files", workload.PhaseKernelUp, workload.PhaseWorkload},
		{"command", workload.PhaseWorkload, workload.PhaseExited},
		{"return files, end QEMU", workload.PhaseExited, workload.PhaseTornDown},
	}
	for _, p := range parts {
		if from, to := at[p.from.String()], at[p.to.String()]; from != 0 && to != 0 {
			_, _ = fmt.Fprintf(a.Err, "duplex: %-30s %7.3f s\n", p.what, float64(to-from)/1e9)
		}
	}
}

func (o *labOptions) options(a *app, argv []string) (lab.Options, error) {
	memory, err := units.RAMInBytes(o.memory)
	if err != nil {
		return lab.Options{}, a.Usage("--memory=%s: not a size", o.memory)
	}
	cwd, err := os.Getwd()
	if err != nil {
		return lab.Options{}, fmt.Errorf("find the working directory: %w", err)
	}
	opts := lab.Options{
		Argv: argv, Env: runcli.FromCaller(o.env), Cwd: cwd, Carry: o.carry,
		Deterministic: o.deterministic, Memory: memory, CPUs: o.cpus, Timeout: o.timeout,
		TTY: o.tty, Interactive: o.interactive, Kernel: o.kernel,
	}
	if o.verbose {
		opts.Console = a.Err
	}
	return opts, nil
}

// inLab runs a command in the lab, connected to the caller's streams.
func (a *app) inLab(ctx context.Context, o lab.Options, rec *workload.Recorder) error {
	spec := workload.Spec{Interactive: o.Interactive, TTY: o.TTY}
	se, err := a.NewSession(ctx, &spec, rec)
	if err != nil {
		return err
	}
	defer se.Close()
	o.Size = spec.Size
	exit, err := lab.Run(se.Ctx, o, se.Stdio, rec)
	se.Close()
	if err != nil {
		return err
	}
	if exit.Message != "" {
		_, _ = fmt.Fprintf(a.Err, "duplex: %s\n", exit.Message)
	}
	return cmdline.Status(exit.Status())
}
