// Bench measures how quickly duplex boots, against QEMU, and holds it to a budget.
// See package bootbench.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/duplex-run/duplex/internal/vmmbench/bootbench"
	"github.com/duplex-run/duplex/internal/vmmbench/host"
)

// options are the flags.
type options struct {
	host.Options
	modes  string
	cases  string
	budget string
	write  bool
}

func main() {
	// The first boot of each case is not counted.
	o := options{Options: host.Options{Guest: "bin/bootbench-guest", Runs: 5, Timeout: 30 * time.Minute}}
	o.Register()
	flag.StringVar(&o.modes, "modes", "deterministic,wall", "`MODES` of the lab: deterministic (instructions), wall (time)")
	flag.StringVar(&o.cases, "cases", "", "only cases whose name holds one of `WORDS`, with commas")
	flag.StringVar(&o.budget, "budget", "", "hold duplex to the budget in `FILE`, deterministically; fail when it is exceeded")
	flag.BoolVar(&o.write, "write", false, "with -budget: write what was measured into the file")
	host.Main(driverMain, o.run)
}

func (o *options) run(ctx context.Context) error {
	if o.From != "" {
		records, err := host.Load[bootbench.Record](o.From)
		if err != nil && len(records) == 0 {
			return err
		}
		return errors.Join(err, bootbench.Report(os.Stdout, "as recorded in "+o.From, records))
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
		records, err := b.measure(ctx, mode, b.choose(o.cases), o.Runs)
		err = errors.Join(err, host.Save(o.JSON, records))
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

func progress(r bootbench.Record) string {
	c, ok := bootbench.FindCase(r.Case)
	if !ok {
		return r.Text
	}
	return fmt.Sprintf("%s, run %d: %.2f ms %s", r.Case, r.Run+1, float64(r.Ns[c.End()])/1e6, r.Text)
}
