package cli

import (
	"context"
	"errors"
	"os"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm/trace"
)

var traceCommand = command{
	name:    "trace",
	args:    "FILE",
	summary: "Summarise the exits of a guest that --trace wrote down",
	run:     runTrace,
}

func runTrace(_ context.Context, a *app, args []string) (err error) {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	perfetto := fs.String("perfetto", "", "convert to `FILE` for Perfetto or chrome://tracing")
	top := fs.Int("top", 20, "show the `N` costliest device registers")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return a.Usage("want one trace file")
	}
	path := fs.Arg(0)
	defer func() {
		if errors.Is(err, trace.ErrFormat) {
			err = &workload.Error{Op: "read " + path, Err: err, Remedy: "'duplex run --vm --trace FILE' and 'duplex boot --trace FILE' write one."}
		}
	}()
	in, err := os.Open(path)
	if err != nil {
		return &workload.Error{Op: "read the trace", Err: err}
	}
	defer func() { _ = in.Close() }()
	if *perfetto != "" {
		out, err := os.Create(*perfetto)
		if err != nil {
			return &workload.Error{Op: "write the trace", Err: err}
		}
		return errors.Join(trace.WritePerfetto(out, in), out.Close())
	}
	s, err := trace.Summarize(in)
	if err != nil {
		return err
	}
	if *asJSON {
		return cmdline.PrintJSON(a.Out, s)
	}
	return s.WriteText(a.Out, *top)
}
