package ocicli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/oci"
)

// Streams are those of a command.
type Streams struct {
	In       *os.File
	Out, Err io.Writer
	// StopSignals ends the handling of signals by who cancels the context.
	StopSignals func()
	// Guest finds what a microVM boots, by the name or file of its kernel; nil where
	// there are none.
	Guest func(ctx context.Context, kernel string) (oci.Guest, error)
}

// Summary is one line on what Run does.
const Summary = ociSummary

// Run runs `duplex oci ARGS...`.
func Run(ctx context.Context, s Streams, args []string) error {
	return ociRun(ctx, &app{in: s.In, out: s.Out, err: s.Err, stopSignals: s.StopSignals, guest: s.Guest}, args)
}

// Main is a program that is an OCI runtime only; args are those behind its name. It
// returns the exit status.
func Main(args []string) int {
	var s cmdline.Signals
	ctx, stop := s.Notify()
	defer stop()
	err := Run(ctx, Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, StopSignals: s.Stop}, args)
	return s.Finish(os.Stderr, err)
}

// app carries what every subcommand needs.
type app struct {
	in          *os.File
	out, err    io.Writer
	cmd         subcommand
	stopSignals func()
	guest       func(ctx context.Context, kernel string) (oci.Guest, error)
}

// subcommand is the one that runs.
type subcommand struct{ name, args, summary string }

// warn says what the user should know; the command goes on.
func (a *app) warn(text string) { _, _ = fmt.Fprintf(a.err, "duplex: %s\n", text) }

func (a *app) flags() *pflag.FlagSet { return cmdline.Flags(a.cmd.name) }

func (a *app) parse(fs *pflag.FlagSet, args []string) error {
	return cmdline.Parse(a.out, fs, args, a.cmd.args, a.cmd.summary)
}

func (a *app) usage(format string, args ...any) error {
	return cmdline.Usage(a.cmd.name, format, args...)
}
