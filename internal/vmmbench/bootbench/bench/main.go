// Bench measures how quickly duplex boots, against QEMU, and holds it to a budget.
// See package bootbench.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/duplex-run/duplex/internal/vmmbench/bootbench"

	"github.com/duplex-run/duplex/internal/vmmbench"
)

// options are the flags.
type options struct {
	duplex, guest string // programs
	modes         string
	cases         string
	runs          int
	timeout       time.Duration
	json, from    string
	budget        string
	write         bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == inLab {
		exit(driverMain(os.Args[2:]))
	}
	var o options
	flag.StringVar(&o.duplex, "duplex", "bin/duplex", "duplex `PROGRAM`")
	flag.StringVar(&o.guest, "guest", "bin/bootbench-guest", "QEMU's guest's `PROGRAM`")
	flag.StringVar(&o.modes, "modes", "deterministic,wall", "`MODES` of the lab: deterministic (instructions), wall (time)")
	flag.StringVar(&o.cases, "cases", "", "only cases whose name holds one of `WORDS`, with commas")
	flag.IntVar(&o.runs, "runs", 5, "boots of each case, after one that is not counted")
	flag.DurationVar(&o.timeout, "timeout", 30*time.Minute, "end a lab after `DURATION`")
	flag.StringVar(&o.json, "json", "", "write the records of the last mode to `FILE`, one a line")
	flag.StringVar(&o.from, "from", "", "measure nothing: print the table of the records in `FILE`")
	flag.StringVar(&o.budget, "budget", "", "hold duplex to the budget in `FILE`, deterministically; fail when it is exceeded")
	flag.BoolVar(&o.write, "write", false, "with -budget: write what was measured into the file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(o.run(ctx))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (o *options) run(ctx context.Context) error {
	if o.from != "" {
		f, err := os.Open(o.from)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		records, err := vmmbench.ReadRecords[bootbench.Record](f)
		return errors.Join(err, bootbench.Report(os.Stdout, "as recorded in "+o.from, records))
	}
	b, err := o.prepare(ctx)
	if err != nil {
		return err
	}
	if o.budget != "" {
		return o.hold(ctx, b)
	}
	for mode := range strings.SplitSeq(o.modes, ",") {
		if mode != deterministic && mode != wall {
			return fmt.Errorf("-modes %s: want %s or %s", mode, deterministic, wall)
		}
		records, err := b.measure(ctx, mode, b.choose(o.cases), o.runs)
		if o.json != "" {
			var buf bytes.Buffer
			werr := vmmbench.WriteRecords(&buf, records)
			err = errors.Join(err, werr, os.WriteFile(o.json, buf.Bytes(), 0o666))
		}
		if len(records) > 0 {
			err = errors.Join(err, bootbench.Report(os.Stdout, titles[mode], records))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// The modes of the lab.
const (
	deterministic = "deterministic"
	wall          = "wall"
)

var titles = map[string]string{
	deterministic: "deterministic lab: milliseconds of instruction time, 2 ns an instruction",
	wall:          "lab, wall time: milliseconds of an emulated machine on a host that may be busy",
}

// progress says on stderr what comes in.
type progress struct{}

func (progress) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		records, err := vmmbench.ReadRecords[bootbench.Record](bytes.NewReader(line))
		if err != nil || len(records) != 1 {
			continue
		}
		r := records[0]
		if c, ok := bootbench.FindCase(r.Case); ok {
			fmt.Fprintf(os.Stderr, "bench: %s, run %d: %.2f ms %s\n", r.Case, r.Run+1, float64(r.Ns[c.End()])/1e6, r.Text)
		}
	}
	return len(p), nil
}

var _ io.Writer = progress{}
