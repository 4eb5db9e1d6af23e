package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/container"
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
	signal atomic.Int32
	// stopSignals ends the default handling of signals; idempotent.
	stopSignals func()
	// tracked is the run of this process, if it is one that others see.
	tracked *tracked
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
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// Main runs the duplex command line and returns its exit status.
func Main(argv []string, stdin *os.File, stdout, stderr io.Writer) int {
	container.Init() // does not return in a container's own processes
	microvm.Program = program.Open
	microvm.UserNetworks.New, microvm.UserNetworks.Plan = userNetwork, userNetworkPlan
	microvm.BridgeNetwork = joinBridge
	a := &app{in: stdin, out: stdout, err: stderr}
	ctx, stop := a.signalContext()
	defer stop()
	err := a.dispatch(ctx, arguments(argv))
	return a.finish(err)
}

// ociName is what a link to duplex is called that engines can take as a runtime,
// as it is: they give a runtime's program one word.
const ociName = "duplex-oci"

// arguments are those behind the program's name, which may stand for the first.
func arguments(argv []string) []string {
	if filepath.Base(argv[0]) == ociName {
		return append([]string{ociCommand.name}, argv[1:]...)
	}
	return argv[1:]
}

// signalContext is cancelled by the first SIGINT, SIGTERM or SIGHUP, so that
// every command unwinds and cleans up. `run` takes the signals over itself.
func (a *app) signalContext() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	a.stopSignals = sync.OnceFunc(func() { signal.Stop(ch); close(done) })
	go func() {
		select {
		case s := <-ch:
			if sig, ok := s.(syscall.Signal); ok {
				a.signal.Store(int32(sig))
			}
			cancel()
		case <-done:
		}
	}()
	return ctx, func() { a.stopSignals(); cancel() }
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

// finish prints err, once, and returns the exit status.
func (a *app) finish(err error) int {
	var status statusError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case a.signal.Load() != 0 && errors.Is(err, context.Canceled):
		return 128 + int(a.signal.Load())
	}
	code, remedy := workload.StatusError, ""
	var werr *workload.Error
	if errors.As(err, &werr) {
		remedy = werr.Remedy
		if werr.Status != 0 {
			code = werr.Status
		}
	}
	_, _ = fmt.Fprintf(a.err, "duplex: %v\n", err)
	if remedy != "" {
		_, _ = fmt.Fprintln(a.err, remedy)
	}
	return code
}

// errHelp says that help was asked for and printed.
var errHelp = statusError(0)

// warn says what the user should know; the command goes on.
func (a *app) warn(text string) { _, _ = fmt.Fprintf(a.err, "duplex: %s\n", text) }

// flags returns the flag set of the running subcommand; flags end at the first
// argument, so that a payload's flags pass through.
func (a *app) flags() *pflag.FlagSet {
	fs := pflag.NewFlagSet(a.cmd.name, pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.SortFlags = false
	fs.SetOutput(io.Discard)
	return fs
}

// parse parses args; it prints the usage and returns errHelp for --help.
func (a *app) parse(fs *pflag.FlagSet, args []string) error {
	err := fs.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		_, _ = fmt.Fprintf(a.out, "Usage: duplex %s [FLAGS] %s\n\n%s.\n\nFlags:\n%s", fs.Name(), a.cmd.args, a.cmd.summary, fs.FlagUsages())
		return errHelp
	}
	if err != nil {
		return a.usage("%v", err)
	}
	return nil
}

// usage makes the error for a command line that cannot be meant.
func (a *app) usage(format string, args ...any) error {
	return &workload.Error{
		Op:     a.cmd.name,
		Err:    fmt.Errorf(format, args...),
		Remedy: fmt.Sprintf("'duplex %s --help' lists the flags", a.cmd.name),
	}
}
