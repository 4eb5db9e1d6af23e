// Bench measures duplex's monitor against QEMU in one lab, and what a machine
// costs on this host. See package vmmbench.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/duplex-run/duplex/internal/vmmbench"
	"github.com/duplex-run/duplex/internal/vmmbench/host"
)

// options are the flags.
type options struct {
	host.Options
	suites string
	wall   bool
	native bool
	cpus   int
	kicks  bool
}

func main() {
	o := options{Options: host.Options{Guest: "bin/vmmbench-guest", Runs: 3, Timeout: 20 * time.Minute}}
	o.Register()
	flag.StringVar(&o.suites, "suites", "blk,net,fs", "`SUITES` to run")
	flag.BoolVar(&o.wall, "wall", false, "measure time, not instructions")
	flag.IntVar(&o.cpus, "cpus", 1, "CPUs of the lab, with -wall")
	flag.BoolVar(&o.kicks, "kicks", true, "count notifications by a probe in the lab's kernel")
	flag.BoolVar(&o.native, "native", true, "measure start and memory on this host, if it has a /dev/kvm")
	host.Main(driverMain, o.run)
}

func (o *options) run(ctx context.Context) error {
	records, err := o.measure(ctx)
	err = errors.Join(err, host.Save(o.JSON, records))
	if len(records) > 0 {
		err = errors.Join(err, vmmbench.Report(os.Stdout, records))
	}
	return err
}

// measure returns all records; those it has when it fails.
func (o *options) measure(ctx context.Context) (records []vmmbench.Record, err error) {
	if o.From != "" {
		return host.Load[vmmbench.Record](o.From)
	}
	if o.native {
		if records, err = native(ctx, o.Duplex); err != nil {
			return records, fmt.Errorf("measure on this host: %w", err)
		}
	}
	if strings.Trim(o.suites, ",") == "" {
		return records, nil
	}
	inside, err := o.lab(ctx)
	return append(records, inside...), err
}

func progress(r vmmbench.Record) string {
	return fmt.Sprintf("%s run %d: %s %s", r.Monitor, r.Run+1, r.Name, r.Text)
}
