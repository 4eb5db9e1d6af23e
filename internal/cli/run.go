package cli

import (
	"context"
	"os"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/embedded"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/microvm"
	"github.com/duplex-run/duplex/network/bridge"
)

// runCommand is package runcli's; what only the whole of duplex has of it is here.
var runCommand = command{
	name:    runcli.RunCommand.Name,
	args:    runcli.RunCommand.Args,
	summary: runcli.RunCommand.Summary,
	run:     func(ctx context.Context, a *app, args []string) error { return runcli.Run(ctx, a.App, args) },
}

var _ runcli.Whole = (*app)(nil)

// RunInLab implements runcli.Whole.
func (a *app) RunInLab(ctx context.Context, f *runcli.Flags, fs *pflag.FlagSet, args []string) error {
	exe, _, err := here()
	if err != nil {
		return err
	}
	if err := a.Tracked.InLab(&forward{exe: exe, id: f.ID}, fs.Args()[1:]); err != nil {
		return err
	}
	return a.runInLab(ctx, labJob{
		fs: fs, args: args, image: fs.Arg(0), opts: &f.Options, output: []string{f.Trace, f.BootLog},
		last: []string{"--detach=false", "--detached-fd=0", "--run-id=" + f.ID},
	})
}

// MicroVM implements runcli.Whole.
func (a *app) MicroVM(ctx context.Context, f *runcli.Flags, spec workload.Spec) (workload.Runner, error) {
	guest, err := a.guest(ctx, &f.Options)
	if err != nil {
		return nil, err
	}
	network, err := a.machineNetwork(&f.NetworkFlags)
	if err != nil {
		return nil, err
	}
	r := microvm.Runner{
		Kernel: guest.kernel, Initrd: guest.initrd, Network: network, Trace: f.Trace, NoJail: f.NoJail, Warn: a.Warn, Version: cmdline.Version(),
	}
	if f.Warm {
		if r.Snapshot, err = a.warm(ctx, r, spec); err != nil {
			return nil, err
		}
	}
	if f.BootLog != "" { // last: a snapshot is not made of it
		r.Log, err = logTo(f.BootLog)
	}
	return r, err
}

// logTo makes the file at path and returns what appends to it. It is closed with
// the process.
func logTo(path string) (func(string), error) {
	out, err := os.Create(path)
	if err != nil {
		return nil, &workload.Error{Op: "write the guest's log", Err: err}
	}
	return func(text string) { _, _ = out.WriteString(text) }, nil // a log cut short reads as one
}

// Guest implements runcli.Whole.
func (a *app) Guest(ctx context.Context, o *runcli.Options) error {
	_, err := a.guest(ctx, o)
	return err
}

// Probe implements runcli.Whole.
func (a *app) Probe() ([]byte, error) { return embedded.Probe() }

// Sweep implements runcli.Whole.
func (a *app) Sweep() error { return bridge.Sweep() }
