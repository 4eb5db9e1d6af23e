package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/container"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/ocicli"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/microvm"
	"github.com/duplex-run/duplex/microvm/program"
)

// command is one subcommand.
type command struct {
	name    string
	args    string // what follows the flags, for the usage line
	summary string // one line, no full stop
	run     func(ctx context.Context, a *app, args []string) error
}

// app carries what every subcommand needs.
type app struct {
	in       *os.File
	out, err io.Writer
	cmd      command
	// signal is the number of the signal that ended the context, or 0.
	signal *atomic.Int32
	// stopSignals ends the default handling of signals; idempotent.
	stopSignals func()
	// takeSignals has them go to who calls it.
	takeSignals func() <-chan os.Signal
	// finish prints an error, once, and returns the exit status.
	finish func(error) int
	// tracked is the run of this process, if it is one that others see.
	tracked *tracked
	// probed is why KVM here cannot boot a stock kernel, or nothing; nil before
	// labFor had to know.
	probed *string
}

// commands is the table, in the order help prints it.
func commands() []command {
	return []command{
		doctorCommand,
		runCommand,
		execCommand,
		psCommand,
		logsCommand,
		attachCommand,
		stopCommand,
		killCommand,
		waitCommand,
		rmCommand,
		statsCommand,
		inspectCommand,
		compareCommand,
		bootReportCommand,
		bootCommand,
		traceCommand,
		imageCommand,
		kernelCommand,
		snapshotCommand,
		labCommand,
		ociCommand,
		versionCommand,
	}
}

// statusError passes a workload's exit status through without a message.
type statusError = cmdline.Status

// ociCommand is a package of its own, see there.
var ociCommand = command{
	name:    "oci",
	args:    "COMMAND [FLAGS] [ARGS]",
	summary: ocicli.Summary,
	run: func(ctx context.Context, a *app, args []string) error {
		return ocicli.Run(ctx, ocicli.Streams{In: a.in, Out: a.out, Err: a.err, Signals: a.takeSignals, Guest: a.ociGuest}, args)
	},
}

// Link gives package microvm what it does not link itself. A process that has a
// machine without Main, that of `duplex oci`, calls it first.
func Link() {
	microvm.Program = program.Open
	microvm.UserNetworks.New, microvm.UserNetworks.Plan = userNetwork, userNetworkPlan
	microvm.BridgeNetwork = joinBridge
}

// Main runs the duplex command line and returns its exit status.
func Main(argv []string, stdin *os.File, stdout, stderr io.Writer) int {
	container.Init() // does not return in a container's own processes
	Link()
	var signals cmdline.Signals
	a := &app{in: stdin, out: stdout, err: stderr, signal: &signals.Number, stopSignals: signals.Stop, takeSignals: signals.Take}
	a.finish = func(err error) int { return signals.Finish(stderr, err) }
	ctx, stop := signals.Notify() // `run` takes the signals over itself
	defer stop()
	err := a.dispatch(ctx, arguments(argv))
	return a.finish(err)
}

// ociName is what a link to duplex is called that engines can take as a runtime,
// as it is: they give a runtime's program one word.
const ociName = "duplex-runtime"

// arguments are those behind the program's name, which may stand for the first.
func arguments(argv []string) []string {
	if filepath.Base(argv[0]) == ociName {
		return append([]string{ociCommand.name}, argv[1:]...)
	}
	return argv[1:]
}

func (a *app) dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		a.help(a.err)
		return statusError(workload.StatusError)
	}
	switch args[0] {
	case "help", "--help", "-h":
		if len(args) > 1 && args[0] == "help" {
			return a.dispatch(ctx, []string{args[1], "--help"})
		}
		a.help(a.out)
		return nil
	case "--version":
		args = []string{"version"}
	}
	for _, c := range commands() {
		if c.name == args[0] {
			a.cmd = c
			return c.run(ctx, a, args[1:])
		}
	}
	return &workload.Error{
		Op:     fmt.Sprintf("unknown command %q", args[0]),
		Remedy: "'duplex help' lists the commands",
	}
}

func (a *app) help(w io.Writer) {
	var b strings.Builder
	b.WriteString("duplex runs one image in a microVM and in a container, and compares them.\n\nUsage: duplex COMMAND [FLAGS] [ARGS]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-11s %s\n", c.name, c.summary)
	}
	b.WriteString("\n'duplex COMMAND --help' says more.\n")
	_, _ = io.WriteString(w, b.String())
}

// warn says what the user should know; the command goes on.
func (a *app) warn(text string) { _, _ = fmt.Fprintf(a.err, "duplex: %s\n", text) }

func (a *app) flags() *pflag.FlagSet { return cmdline.Flags(a.cmd.name) }

// parse parses args; it prints the usage and returns cmdline.ErrHelp for --help.
func (a *app) parse(fs *pflag.FlagSet, args []string) error {
	return cmdline.Parse(a.out, fs, args, a.cmd.args, a.cmd.summary)
}

func (a *app) usage(format string, args ...any) error {
	return cmdline.Usage(a.cmd.name, format, args...)
}
