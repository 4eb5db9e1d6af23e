package bootreport

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/compare"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm/probe"
)

// Options say what to boot.
type Options struct {
	// Exe is the duplex binary. It must show progress to nobody.
	Exe string
	// Flags of `duplex run`, and what it runs; Image.Digest is passed on.
	Flags   []string
	Image   compare.Image
	Command []string
	Host    compare.Host
	// Warm says that Flags restore the machine from a snapshot.
	Warm bool
	// Dir is an empty directory for the trace and the log.
	Dir string
	// Progress is told which boot is next, of how many; may be nil.
	Progress func(kind string, n, of int)
}

// Names of the files in Options.Dir.
const (
	traceName = "trace"
	logName   = "log"
)

// TracePath is where Run leaves the observed boot's trace.
func (o *Options) TracePath() string { return filepath.Join(o.Dir, traceName) }

// Run makes the boots and says where the observed one went. Errors are
// *workload.Error, or ctx's.
func Run(ctx context.Context, o Options) (*Document, error) {
	logPath := filepath.Join(o.Dir, logName)
	observe := []string{"--boot-log=" + logPath, "--trace=" + o.TracePath()}
	doc := &Document{Host: o.Host, Image: o.Image, Command: o.Command, Warm: o.Warm}
	var seen observation
	plan := []struct {
		kind  string
		extra []string
	}{{First, nil}, {Observed, observe}, {Again, nil}}
	for i, p := range plan {
		if o.Progress != nil {
			o.Progress(p.kind, i, len(plan))
		}
		m, err := o.boot(ctx, p.kind, p.extra)
		if err != nil {
			return nil, err
		}
		doc.Boots = append(doc.Boots, m.boot())
		if p.kind == Observed {
			seen.begin, seen.steps = m.p.Begin, m.p.Report.Steps
		}
	}
	var err error
	if seen.log, err = os.ReadFile(logPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the guest's log: %w", err)
	}
	trace, err := os.Open(o.TracePath())
	if err != nil {
		return nil, fmt.Errorf("read the boot's trace: %w", err)
	}
	defer func() { _ = trace.Close() }()
	seen.trace = trace
	if doc.FaultNs, seen.clearNs, err = memoryCost(); err != nil {
		return nil, err
	}
	if cost, err := probe.ExitCost(); err == nil { // else the rule about it is silent
		doc.ExitNs = int64(cost)
	}
	return doc, build(doc, seen)
}

// boot makes one boot.
func (o *Options) boot(ctx context.Context, kind string, extra []string) (*made, error) {
	args := append([]string{"--isolation=vm", "--until-output"}, extra...)
	args = append(append(args, o.Flags...), o.Image.Digest)
	out := &firstByte{}
	p, err := compare.Once(ctx, o.Exe, append(args, o.Command...), "", out)
	if err != nil {
		return nil, err
	}
	if why := p.Failure(); why != "" {
		return nil, &workload.Error{Op: "boot (" + kind + ")", Err: errors.New(why), Remedy: "See whether 'duplex run --vm' with the same arguments works."}
	}
	if e := p.Report.Exit; e.Message != "" {
		return nil, &workload.Error{Op: "boot", Err: errors.New(e.Message), Status: e.Code}
	}
	return &made{kind: kind, p: p, first: out.at}, nil
}

// firstByte stamps the first byte and drops them all.
type firstByte struct{ at int64 }

func (f *firstByte) Write(p []byte) (int, error) {
	if f.at == 0 && len(p) > 0 {
		f.at = workload.Now()
	}
	return len(p), nil
}

// memoryCost measures what a page fault on new memory and clearing a MiB of it
// again take here, in nanoseconds.
func memoryCost() (fault, clearing int64, err error) {
	const mib, page = 16, 4096
	b, err := unix.Mmap(-1, 0, mib<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return 0, 0, fmt.Errorf("measure memory: %w", err)
	}
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE) // a kernel without huge pages refuses
	begin := workload.Now()
	for i := 0; i < len(b); i += page {
		b[i] = 1
	}
	touched := workload.Now()
	clear(b)
	cleared := workload.Now()
	return (touched - begin) / (mib << 20 / page), (cleared - touched) / mib, unix.Munmap(b)
}
