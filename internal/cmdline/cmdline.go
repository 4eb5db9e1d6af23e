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
	"time"

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

// Signals cancel a command's context, or go to who takes them.
type Signals struct {
	Number atomic.Int32 // of the one that cancelled
	in     chan os.Signal
	taken  atomic.Pointer[chan os.Signal]
	stop   func()
}

// Notify returns a context that is cancelled by the first SIGINT, SIGTERM or
// SIGHUP, so that every command unwinds and cleans up.
func (s *Signals) Notify() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	s.in = make(chan os.Signal, 16)
	signal.Notify(s.in, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	s.stop = sync.OnceFunc(func() { signal.Stop(s.in); close(done) })
	go func() {
		for {
			select {
			case sig := <-s.in:
				s.receive(sig, cancel)
			case <-done:
				return
			}
		}
	}()
	return ctx, func() { s.stop(); cancel() }
}

func (s *Signals) receive(got os.Signal, cancel func()) {
	sig, ok := got.(syscall.Signal)
	if !ok {
		return
	}
	if out := s.taken.Load(); out != nil {
		*out <- sig
		return
	}
	if s.Number.CompareAndSwap(0, int32(sig)) {
		cancel()
	}
}

// Stop ends the handling of signals: the command takes them over. Idempotent.
func (s *Signals) Stop() { s.stop() }

// late is when Take takes the signals that are rare. Each that Go's runtime handles
// costs four switches between threads, all of them a tenth of a container's start.
const late = 200 * time.Millisecond

// Take returns where all further signals go, and the one that has cancelled the
// context before: the usual ones from now on, the others after late. It is called
// at most once.
func (s *Signals) Take() <-chan os.Signal {
	out := make(chan os.Signal, 16)
	s.taken.Store(&out)
	if sig := s.Number.Load(); sig != 0 {
		out <- syscall.Signal(sig)
	}
	signal.Notify(s.in, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	time.AfterFunc(late, func() {
		signal.Notify(s.in)
		signal.Reset(syscall.SIGURG) // of Go's scheduler
	})
	return out
}

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
