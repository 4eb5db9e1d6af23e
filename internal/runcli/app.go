package runcli

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/workload"
)

// App carries what every subcommand needs.
type App struct {
	In       *os.File
	Out, Err io.Writer
	Cmd      Command
	// Signal is the number of the signal that ended the context, or 0.
	Signal *atomic.Int32
	// StopSignals ends the default handling of signals; idempotent.
	StopSignals func()
	// Tracked is the run of this process, if it is one that others see.
	Tracked *Tracked
	// Whole is the rest of duplex; nil in a program that only makes containers.
	Whole Whole
}

// Command says what the subcommand is that runs.
type Command struct {
	Name    string
	Args    string // what follows the flags, for the usage line
	Summary string // one line, no full stop
}

// Whole is what only the whole of duplex can.
type Whole interface {
	// LabFor says why a command runs in the lab machine, "" when it does not.
	LabFor(mode string, wanted bool) string
	// RunInLab runs a command line there.
	RunInLab(ctx context.Context, f *Flags, fs *pflag.FlagSet, args []string) error
	// CheckNetwork checks the network of a microVM.
	CheckNetwork(f *NetworkFlags) error
	// Guest finds what a microVM boots, or makes it.
	Guest(ctx context.Context, o *Options) error
	// MicroVM is what runs the workload in a microVM.
	MicroVM(ctx context.Context, f *Flags, spec workload.Spec) (workload.Runner, error)
	// Probe is the executable of the isolation probe.
	Probe() ([]byte, error)
	// Sweep removes what killed runs left on the bridge.
	Sweep() error
}

// Warn says what the user should know; the command goes on.
func (a *App) Warn(text string) { _, _ = fmt.Fprintf(a.Err, "duplex: %s\n", text) }

// Flags is the flag set of the command.
func (a *App) Flags() *pflag.FlagSet { return cmdline.Flags(a.Cmd.Name) }

// Parse parses args; it prints the usage and returns cmdline.ErrHelp for --help.
func (a *App) Parse(fs *pflag.FlagSet, args []string) error {
	return cmdline.Parse(a.Out, fs, args, a.Cmd.Args, a.Cmd.Summary)
}

// Usage makes the error for a command line that cannot be meant.
func (a *App) Usage(format string, args ...any) error {
	return cmdline.Usage(a.Cmd.Name, format, args...)
}

// Image resolves ref, importing it with progress on a terminal when the store
// lacks it. needTree also unpacks it.
func (a *App) Image(ctx context.Context, ref string, needTree bool) (*image.Image, error) {
	p := a.Progress()
	defer p.Done()
	return image.Resolve(ctx, ref, image.Options{
		NeedTree: needTree,
		Progress: func(step string) { p.Update("image: "+step, -1) },
	})
}
