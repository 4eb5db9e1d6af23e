package cmdline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/internal/workload"
)

// version is set by the build (-ldflags -X), from git describe.
var version = ""

// Version is the version of this duplex.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// Status passes a workload's exit status through without a message.
type Status int

func (s Status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// ErrHelp says that help was asked for and printed.
var ErrHelp = Status(0)

// Signals cancel a command's context.
type Signals struct {
	Number atomic.Int32 // of the one that did
	stop   func()
}

// Notify returns a context that is cancelled by the first SIGINT, SIGTERM or
// SIGHUP, so that every command unwinds and cleans up.
func (s *Signals) Notify() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	s.stop = sync.OnceFunc(func() { signal.Stop(ch); close(done) })
	go func() {
		select {
		case sig := <-ch:
			if sig, ok := sig.(syscall.Signal); ok {
				s.Number.Store(int32(sig))
			}
			cancel()
		case <-done:
		}
	}()
	return ctx, func() { s.stop(); cancel() }
}

// Stop ends the handling of signals: the command takes them over. Idempotent.
func (s *Signals) Stop() { s.stop() }

// Finish prints err, once, and returns the exit status.
func (s *Signals) Finish(w io.Writer, err error) int {
	var status Status
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case s.Number.Load() != 0 && errors.Is(err, context.Canceled):
		return 128 + int(s.Number.Load())
	}
	remedy, code := workload.Advice(err)
	_, _ = fmt.Fprintf(w, "duplex: %v\n", err)
	if remedy != "" {
		_, _ = fmt.Fprintln(w, remedy)
	}
	return code
}

// Flags returns the flag set of a subcommand; flags end at the first argument, so
// that a payload's flags pass through.
func Flags(name string) *pflag.FlagSet {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.SortFlags = false
	fs.SetOutput(io.Discard)
	return fs
}

// Parse parses args; it prints the usage and returns ErrHelp for --help. arguments
// is what follows the flags, summary what the command does.
func Parse(w io.Writer, fs *pflag.FlagSet, args []string, arguments, summary string) error {
	err := fs.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		_, _ = fmt.Fprintf(w, "Usage: duplex %s [FLAGS] %s\n\n%s.\n\nFlags:\n%s", fs.Name(), arguments, summary, fs.FlagUsages())
		return ErrHelp
	}
	if err != nil {
		return Usage(fs.Name(), "%v", err)
	}
	return nil
}

// Usage makes the error for a command line that cannot be meant.
func Usage(name, format string, args ...any) error {
	return &workload.Error{
		Op:     name,
		Err:    fmt.Errorf(format, args...),
		Remedy: fmt.Sprintf("'duplex %s --help' lists the flags", name),
	}
}

// PrintJSON prints v for programs.
func PrintJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
