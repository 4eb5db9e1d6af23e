// Package host is what the host halves of the benchmarks in one lab share: flags,
// the run of the driver in the lab, records. Package vmmbench is linked into
// guests, which have no use for it.
package host

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/duplex-run/duplex/internal/vmmbench"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/lab"
)

// InLab is the first argument of the program in the lab.
const InLab = "in-lab"

// memory of the lab holds a guest, what is booted, disks and shared directories, in
// bytes.
const memory = 2 << 30

// Options are the flags that the benchmarks have in common.
type Options struct {
	Duplex, Guest string // programs
	Runs          int
	Timeout       time.Duration
	JSON, From    string
}

// Register adds the flags. The fields are their defaults.
func (o *Options) Register() {
	flag.StringVar(&o.Duplex, "duplex", "bin/duplex", "duplex `PROGRAM`")
	flag.StringVar(&o.Guest, "guest", o.Guest, "guest `PROGRAM`")
	flag.IntVar(&o.Runs, "runs", o.Runs, "boots of each that is measured")
	flag.DurationVar(&o.Timeout, "timeout", o.Timeout, "end a lab after `DURATION`")
	flag.StringVar(&o.JSON, "json", "", "write the records of the last lab to `FILE`, one a line")
	flag.StringVar(&o.From, "from", "", "measure nothing: print the table of the records in `FILE`")
}

// Main is driver in the lab, and otherwise run, after the flags were parsed. It ends
// the process.
func Main(driver func(args []string) error, run func(context.Context) error) {
	var err error
	if len(os.Args) > 1 && os.Args[1] == InLab {
		err = driver(os.Args[2:])
	} else {
		flag.Parse()
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Save writes records to path, "" for nowhere.
func Save[T any](path string, records []T) error {
	if path == "" {
		return nil
	}
	var b bytes.Buffer
	if err := vmmbench.WriteRecords(&b, records); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o666)
}

// Load reads what Save wrote.
func Load[T any](path string) ([]T, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return vmmbench.ReadRecords[T](f)
}

// Driver runs this program in a lab, with args. It returns the records that it
// printed, also when it fails; each goes to stderr as say puts it, meanwhile.
func Driver[T any](ctx context.Context, args []string, o lab.Options, say func(T) string) ([]T, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ticks, stop := vmmbench.Tick()
	defer stop()
	o.Argv = append([]string{self, InLab}, args...)
	o.Cwd, o.CarryOnly, o.Memory, o.Interactive = "/", true, memory, true
	var out bytes.Buffer
	exit, err := lab.Run(ctx, o, workload.Stdio{In: ticks, Out: io.MultiWriter(&out, progress[T]{say}), Err: os.Stderr}, nil)
	if err == nil && exit.Status() != 0 {
		err = fmt.Errorf("the driver in the lab ended with status %d %s", exit.Status(), exit.Message)
	}
	records, rerr := vmmbench.ReadRecords[T](&out)
	return records, errors.Join(err, rerr)
}

// progress says on stderr what comes in.
type progress[T any] struct{ say func(T) string }

func (p progress[T]) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		if r, err := vmmbench.ReadRecords[T](bytes.NewReader(line)); err == nil && len(r) == 1 {
			fmt.Fprintln(os.Stderr, "bench:", p.say(r[0]))
		}
	}
	return len(b), nil
}
