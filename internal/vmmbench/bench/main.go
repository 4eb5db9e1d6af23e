// Bench measures duplex's monitor against QEMU in one lab, and what a machine
// costs on this host. See package vmmbench.
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

	"github.com/duplex-run/duplex/internal/vmmbench"
)

// options are the flags.
type options struct {
	duplex, guest string // programs
	suites        string
	runs          int
	wall          bool
	native        bool
	timeout       time.Duration
	json, from    string
	cpus          int
	kicks         bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == inLab {
		exit(driverMain(os.Args[2:]))
	}
	var o options
	flag.StringVar(&o.duplex, "duplex", "bin/duplex", "duplex `PROGRAM`")
	flag.StringVar(&o.guest, "guest", "bin/vmmbench-guest", "guest `PROGRAM`")
	flag.StringVar(&o.suites, "suites", "blk,net,fs", "`SUITES` to run")
	flag.IntVar(&o.runs, "runs", 3, "boots of each monitor")
	flag.BoolVar(&o.wall, "wall", false, "measure time, not instructions")
	flag.IntVar(&o.cpus, "cpus", 1, "CPUs of the lab, with -wall")
	flag.BoolVar(&o.kicks, "kicks", true, "count notifications by a probe in the lab's kernel")
	flag.BoolVar(&o.native, "native", true, "measure start and memory on this host, if it has a /dev/kvm")
	flag.DurationVar(&o.timeout, "timeout", 20*time.Minute, "end the lab after `DURATION`")
	flag.StringVar(&o.json, "json", "", "write the records to `FILE`, one a line")
	flag.StringVar(&o.from, "from", "", "measure nothing: print the table of the records in `FILE`")
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
	records, err := o.measure(ctx)
	if o.json != "" {
		var b bytes.Buffer
		werr := vmmbench.WriteRecords(&b, records)
		err = errors.Join(err, werr, os.WriteFile(o.json, b.Bytes(), 0o666))
	}
	if len(records) > 0 {
		err = errors.Join(err, vmmbench.Report(os.Stdout, records))
	}
	return err
}

// measure returns all records; those it has when it fails.
func (o *options) measure(ctx context.Context) (records []vmmbench.Record, err error) {
	if o.from != "" {
		f, err := os.Open(o.from)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		return vmmbench.ReadRecords[vmmbench.Record](f)
	}
	if o.native {
		if records, err = native(ctx, o.duplex); err != nil {
			return records, fmt.Errorf("measure on this host: %w", err)
		}
	}
	if strings.Trim(o.suites, ",") == "" {
		return records, nil
	}
	var out bytes.Buffer
	err = o.lab(ctx, io.MultiWriter(&out, progress{}))
	inside, rerr := vmmbench.ReadRecords[vmmbench.Record](&out)
	return append(records, inside...), errors.Join(err, rerr)
}

// progress says on stderr what comes in.
type progress struct{}

func (progress) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if r, err := vmmbench.ReadRecords[vmmbench.Record](bytes.NewReader(line)); err == nil && len(r) == 1 {
			fmt.Fprintf(os.Stderr, "bench: %s run %d: %s %s\n", r[0].Monitor, r[0].Run+1, r[0].Name, r[0].Text)
		}
	}
	return len(p), nil
}
