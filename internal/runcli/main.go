package runcli

import (
	"io"
	"os"

	"github.com/duplex-run/duplex/internal/cmdline"
)

// Main is a program that is `duplex run` only, and becomes all of duplex for
// anything else. It returns the exit status.
func Main(argv []string, stdin *os.File, stdout, stderr io.Writer) int {
	args := cmdline.Arguments(argv)
	var s cmdline.Signals
	ctx, stop := s.Notify() // `run` takes the signals over itself
	defer stop()
	a := &App{In: stdin, Out: stdout, Err: stderr, Cmd: RunCommand, Signal: &s.Number, StopSignals: s.Stop}
	if len(args) == 0 || args[0] != RunCommand.Name {
		return s.Finish(stderr, cmdline.BecomeWhole("run duplex", args))
	}
	return s.Finish(stderr, Run(ctx, a, args[1:]))
}
