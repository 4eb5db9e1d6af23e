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
	// Signals takes the signals over from who cancels the context.
	Signals func() <-chan os.Signal
	// Guest finds what a microVM boots, by the name or file of its kernel; nil where
	// there are none.
	Guest func(ctx context.Context, kernel string) (oci.Guest, error)
}

// Summary is one line on what Run does.
const Summary = ociSummary

// Run runs `duplex oci ARGS...`.
func Run(ctx context.Context, s Streams, args []string) error {
	return ociRun(ctx, &app{in: s.In, out: s.Out, err: s.Err, signals: s.Signals, guest: s.Guest}, args)
}

// Main is a program that is an OCI runtime only; args are those behind its name. It
// returns the exit status.
func Main(args []string) int {
	var s cmdline.Signals
	ctx, _ := s.Notify() // to the end of the process: to stop it takes time
	err := Run(ctx, Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Signals: s.Take}, args)
	return s.Finish(os.Stderr, err)
}

// app carries what every subcommand needs.
type app struct {
	in       *os.File
	out, err io.Writer
	cmd      subcommand
	signals  func() <-chan os.Signal
	guest    func(ctx context.Context, kernel string) (oci.Guest, error)
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
