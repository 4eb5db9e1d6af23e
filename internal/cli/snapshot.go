package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/microvm"
	"github.com/duplex-run/duplex/microvm/snapshot"
	"github.com/duplex-run/duplex/vmm/probe"
)

var snapshotCommand = command{
	name:    "snapshot",
	args:    "create|ls|inspect|rm|prune",
	summary: "Save booted microVMs, for 'run --warm' to start from",
	run: func(ctx context.Context, a *app, args []string) error {
		return a.group(ctx, snapshotCommands, args)
	},
}

var snapshotCommands = []command{
	{name: "create", args: "IMAGE", summary: "Boot a microVM of an image and save it, as 'run --warm' does by itself", run: runSnapshotCreate},
	{name: "bench", args: "[IMAGE]", summary: "Run many clones of one snapshot at once, and say what memory they take", run: runSnapshotBench},
	{name: "ls", summary: "List the snapshots", run: runSnapshotLs},
	{name: "inspect", args: "NAME", summary: "Say what a snapshot was made of, and check its files", run: runSnapshotInspect},
	{name: "rm", args: "NAME...", summary: "Remove snapshots", run: runSnapshotRm},
	{name: "prune", summary: "Remove snapshots that cannot be used any more, and leftovers", run: runSnapshotPrune},
}

func snapshotRoot() (string, error) {
	root, err := hostdir.Cache("snapshots")
	if err != nil {
		return "", &workload.Error{Op: "find the snapshots", Err: err}
	}
	return root, nil
}

func runSnapshotCreate(ctx context.Context, a *app, args []string) error {
	var o runcli.Options
	fs := a.Flags()
	fs.StringVarP(&o.Memory, "memory", "m", "", "the guest's memory: `SIZE` as 512m, 1g")
	fs.Float64VarP(&o.CPUs, "cpus", "c", 0, "number of `CPUS`")
	fs.StringVar(&o.Kernel, "kernel", "", "guest kernel: a bzImage or vmlinux `FILE`, or a name of 'duplex kernel ls'")
	fs.BoolVar(&o.NoJail, "no-jail", false, "leave the monitor unconfined")
	fs.StringVar(&o.Initrd, "initrd", "", "")
	_ = fs.MarkHidden("initrd")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return a.Usage("want one image, got %d", fs.NArg())
	}
	o.Lab = "never"
	if err := o.Validate(a.App); err != nil {
		return err
	}
	if report, err := probe.Run(); err == nil && !report.BootsStockKernel {
		return &workload.Error{Op: "make a snapshot", Err: errors.New(report.Why),
			Remedy: "In the lab it works: 'duplex run --vm --warm' goes there by itself, and 'duplex lab run' gives you one."}
	}
	img, err := a.Image(ctx, fs.Arg(0), false)
	if err != nil {
		return err
	}
	defer func() { _ = img.Close() }()
	memory, err := o.MemoryBytes(a.App)
	if err != nil {
		return err
	}
	guest, err := a.guest(ctx, &o)
	if err != nil {
		return err
	}
	r := microvm.Runner{Kernel: guest.kernel, Initrd: guest.initrd, NoJail: o.NoJail, Warn: a.Warn, Version: cmdline.Version()}
	spec := workload.Spec{Rootfs: img.Rootfs(), Resources: workload.Resources{MemoryBytes: memory, CPUs: o.CPUs}}
	dir, err := a.createSnapshot(ctx, r, spec)
	if err != nil {
		return err
	}
	if *asJSON {
		return a.printSnapshot(dir)
	}
	_, err = fmt.Fprintln(a.Out, filepath.Base(dir))
	return err
}

func (a *app) createSnapshot(ctx context.Context, r microvm.Runner, spec workload.Spec) (string, error) {
	root, err := snapshotRoot()
	if err != nil {
		return "", err
	}
	p := a.Progress()
	defer p.Done()
	p.Update("snapshot: booting a microVM to save it", -1)
	dir, err := r.CreateSnapshot(ctx, spec, root)
	if err == nil { // what cannot be used any more makes room; it is no reason to fail
		_, _ = snapshot.Prune(root, r.Version, false)
	}
	return dir, err
}

// warm opens the snapshot for spec, and makes it when there is none that can be
// used.
func (a *app) warm(ctx context.Context, r microvm.Runner, spec workload.Spec) (*snapshot.Snapshot, error) {
	root, err := snapshotRoot()
	if err != nil {
		return nil, err
	}
	key, err := r.SnapshotKey(spec)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, key.Name())
	s, err := snapshot.Open(dir, &key)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, snapshot.ErrStale) {
		if errors.Is(err, snapshot.ErrStale) && a.Progress().Shown() {
			_, _ = fmt.Fprintf(a.Err, "duplex: %v; making another\n", err)
		}
		if dir, err = a.createSnapshot(ctx, r, spec); err != nil {
			return nil, err
		}
		s, err = snapshot.Open(dir, &key)
	}
	return s, snapshotError(err, filepath.Base(dir))
}

// snapshotError adds to an error about a snapshot what to do.
func snapshotError(err error, name string) error {
	if err == nil {
		return nil
	}
	own := &workload.Error{Op: "use the snapshot", Err: err}
	switch {
	case errors.Is(err, snapshot.ErrDamaged):
		own.Remedy = "Remove it with 'duplex snapshot rm " + name + "'; the next --warm run makes another."
	case errors.Is(err, snapshot.ErrForeign), errors.Is(err, snapshot.ErrWritable):
		own.Remedy = "Restoring runs what is in there: use snapshots of your own, in a cache directory of your own (DUPLEX_CACHE)."
	case errors.Is(err, os.ErrNotExist):
		own.Remedy = "'duplex snapshot ls' lists them."
	}
	return own
}

// allSnapshots parses a command that takes no snapshot's name; it is about what is
// in root.
func (a *app) allSnapshots(fs *pflag.FlagSet, args []string) (root string, err error) {
	if err := a.Parse(fs, args); err != nil {
		return "", err
	}
	if fs.NArg() > 0 {
		return "", a.Usage("unexpected argument %q", fs.Arg(0))
	}
	return snapshotRoot()
}

func runSnapshotLs(_ context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	quiet := fs.BoolP("quiet", "q", false, "print names only")
	root, err := a.allSnapshots(fs, args)
	if err != nil {
		return err
	}
	list, err := snapshot.List(root)
	if err != nil {
		return err
	}
	switch {
	case *asJSON:
		out := []any{}
		for _, l := range list {
			out = append(out, snapshotJSON(l.Name, l.Meta, l.Err))
		}
		return cmdline.PrintJSON(a.Out, out)
	case *quiet:
		var names []string
		for _, l := range list {
			names = append(names, l.Name)
		}
		return printNames(a.Out, names, false)
	}
	return printSnapshots(a.Out, list)
}

func printSnapshots(w io.Writer, list []snapshot.Listed) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "NAME\tIMAGE\tMEMORY\tCPUS\tSIZE\tMADE")
	for _, l := range list {
		if l.Err != nil {
			_, _ = fmt.Fprintf(tw, "%s\t-\t-\t-\t-\t(%s)\n", l.Name, printable(l.Err.Error()))
			continue
		}
		k := l.Meta.Key
		stale := ""
		if k.Stale(cmdline.Version()) != nil {
			stale = " (stale)"
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%s\t%s%s\n", l.Name, printable(short(k.Image)), units.BytesSize(float64(k.Memory)), k.CPUs,
			units.BytesSize(float64(l.Meta.Memory.Data)), l.Meta.Made.Local().Format("2006-01-02 15:04"), stale)
	}
	return tw.Flush()
}

// snapshotJSON is a snapshot as programs see it.
func snapshotJSON(name string, m snapshot.Meta, err error) any {
	out := struct {
		Name string `json:"name"`
		*snapshot.Meta
		Error string `json:"error,omitempty"`
	}{Name: name}
	if err != nil {
		out.Error = err.Error()
	} else {
		out.Meta = &m
	}
	return out
}

func (a *app) printSnapshot(dir string) error {
	s, err := snapshot.Open(dir, nil)
	if err != nil {
		return snapshotError(err, filepath.Base(dir))
	}
	defer func() { _ = s.Close() }()
	return cmdline.PrintJSON(a.Out, snapshotJSON(filepath.Base(dir), s.Meta, nil))
}

func runSnapshotInspect(_ context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return a.Usage("want one name, got %d", fs.NArg())
	}
	root, err := snapshotRoot()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, filepath.Base(fs.Arg(0)))
	if *asJSON {
		return a.printSnapshot(dir)
	}
	s, err := snapshot.Open(dir, nil)
	if err != nil {
		return snapshotError(err, fs.Arg(0))
	}
	defer func() { _ = s.Close() }()
	k := s.Meta.Key
	for _, line := range [][2]string{
		{"Name", filepath.Base(dir)},
		{"Directory", dir},
		{"Made", s.Meta.Made.Local().Format("2006-01-02 15:04:05")},
		{"Image", k.Image},
		{"Memory", fmt.Sprintf("%s, of it not zero %s", units.BytesSize(float64(k.Memory)), units.BytesSize(float64(s.Meta.Memory.Data)))},
		{"CPUs", fmt.Sprint(k.CPUs)},
		{"Kernel", k.KernelFile},
		{"Initramfs", k.InitrdFile},
		{"Image file", k.ImageFile},
		{"Command line", k.Cmdline},
		{"duplex", k.Duplex},
		{"Host", k.Host},
		{"State", fmt.Sprintf("%d bytes", len(s.Machine))},
		{"SHA-256", s.Meta.Memory.SHA256},
	} {
		if _, err := fmt.Fprintf(a.Out, "%-13s %s\n", line[0]+":", printable(line[1])); err != nil {
			return err
		}
	}
	return nil
}

func runSnapshotRm(_ context.Context, a *app, args []string) error {
	fs := a.Flags()
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return a.Usage("no name given")
	}
	root, err := snapshotRoot()
	if err != nil {
		return err
	}
	var errs error
	for _, name := range fs.Args() {
		if err := snapshot.Remove(root, name); err != nil {
			errs = errors.Join(errs, &workload.Error{Op: "remove the snapshot " + name, Err: err, Remedy: "'duplex snapshot ls' lists them."})
		}
	}
	return errs
}

func runSnapshotPrune(_ context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	all := fs.BoolP("all", "a", false, "remove every snapshot")
	root, err := a.allSnapshots(fs, args)
	if err != nil {
		return err
	}
	removed, err := snapshot.Prune(root, cmdline.Version(), *all)
	if err != nil {
		err = &workload.Error{Op: "prune the snapshots", Err: err}
	}
	return errors.Join(printNames(a.Out, removed, *asJSON), err)
}

// printNames prints one name a line, or JSON.
func printNames(w io.Writer, names []string, asJSON bool) error {
	if asJSON {
		return cmdline.PrintJSON(w, append([]string{}, names...))
	}
	for _, name := range names {
		if _, err := fmt.Fprintln(w, name); err != nil {
			return err
		}
	}
	return nil
}
