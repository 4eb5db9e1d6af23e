package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/duplex-run/duplex/container"
	"github.com/duplex-run/duplex/container/parts/all"
	"github.com/duplex-run/duplex/image/sources"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/ocicli"
	"github.com/duplex-run/duplex/internal/runcli"
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
	*runcli.App
	// takeSignals has signals go to who calls it.
	takeSignals func() <-chan os.Signal
	// finish prints an error, once, and returns the exit status.
	finish func(error) int
	// probed is why KVM here cannot boot a stock kernel, or nothing; nil before
	// LabFor had to know.
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

// ociCommand is a package of its own, see there.
var ociCommand = command{
	name:    "oci",
	args:    "COMMAND [FLAGS] [ARGS]",
	summary: ocicli.Summary,
	run: func(ctx context.Context, a *app, args []string) error {
		return ocicli.Run(ctx, ocicli.Streams{In: a.In, Out: a.Out, Err: a.Err, Signals: a.takeSignals, Guest: a.ociGuest}, args)
	},
}

// Link gives packages microvm, container and image what they do not link themselves. A
// process that has a machine without Main, that of `duplex oci`, calls it first.
func Link() {
	all.Use()
	sources.Use()
	microvm.Program = program.Open
	microvm.UserNetworks.New, microvm.UserNetworks.Plan = userNetwork, userNetworkPlan
	microvm.BridgeNetwork = joinBridge
}

// Main runs the duplex command line and returns its exit status.
func Main(argv []string, stdin *os.File, stdout, stderr io.Writer) int {
	container.Init() // does not return in a container's own processes
	Link()
	var signals cmdline.Signals
	a := &app{App: &runcli.App{In: stdin, Out: stdout, Err: stderr, Signal: &signals.Number, StopSignals: signals.Stop}, takeSignals: signals.Take}
	a.Whole = a
	a.finish = func(err error) int { return signals.Finish(stderr, err) }
	ctx, stop := signals.Notify() // `run` takes the signals over itself
	defer stop()
	err := a.dispatch(ctx, cmdline.Arguments(argv))
	return a.finish(err)
}

func (a *app) dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		a.help(a.Err)
		return cmdline.Status(workload.StatusError)
	}
	switch args[0] {
	case "help", "--help", "-h":
		if len(args) > 1 && args[0] == "help" {
			return a.dispatch(ctx, []string{args[1], "--help"})
		}
		a.help(a.Out)
		return nil
	case "--version":
		args = []string{"version"}
	}
	for _, c := range commands() {
		if c.name == args[0] {
			a.begin(c)
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

// begin says which command runs.
func (a *app) begin(c command) {
	a.Cmd = runcli.Command{Name: c.name, Args: c.args, Summary: c.summary}
}
