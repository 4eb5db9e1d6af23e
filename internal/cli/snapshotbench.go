package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/docker/go-units"

	"github.com/duplex-run/duplex/internal/clones"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/workload"
)

// cloneMemory is what the lab machine gets for each clone, in bytes: with a minimal
// kernel one takes some 12 MiB.
const cloneMemory = 24 << 20

func runSnapshotBench(ctx context.Context, a *app, args []string) error {
	var o runcli.Options
	fs := a.Flags()
	n := fs.IntP("clones", "n", 200, "`N` clones at once")
	jobs := fs.Int("jobs", runtime.NumCPU(), "start `N` of them at once")
	fs.StringVarP(&o.Memory, "memory", "m", "", "a guest's memory: `SIZE` as 512m, 1g")
	fs.StringVar(&o.Kernel, "kernel", "", "guest kernel: a bzImage or vmlinux `FILE`, or a name of 'duplex kernel ls'")
	fs.StringVar(&o.Lab, "lab", "auto", "run in the lab machine: `WHEN` is auto, always or never")
	fs.StringVar(&o.Initrd, "initrd", "", "")
	_ = fs.MarkHidden("initrd")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	switch {
	case fs.NArg() > 1:
		return a.Usage("want one image, got %d", fs.NArg())
	case *n < 1 || *n > 10000:
		return a.Usage("--clones=%d: out of range 1 to 10000", *n)
	case *jobs < 1 || *jobs > 1000:
		return a.Usage("--jobs=%d: out of range 1 to 1000", *jobs)
	}
	if err := o.Validate(a.App); err != nil {
		return err
	}
	ref, _ := imageArg(fs)
	if a.LabFor(o.Lab, true) != "" {
		return a.runInLab(ctx, labJob{fs: fs, args: args, image: ref, opts: &o, memory: int64(*n) * cloneMemory})
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the duplex binary: %w", err)
	}
	flags := []string{"--lab=never"}
	for _, f := range []struct{ name, value string }{{"memory", o.Memory}, {"kernel", o.Kernel}, {"initrd", o.Initrd}} {
		if f.value != "" {
			flags = append(flags, "--"+f.name+"="+f.value)
		}
	}
	// The first makes the snapshot, if there is none that fits.
	one := clones.Options{Exe: exe, Flags: flags, Image: ref, N: 1, Jobs: 1}
	if _, err := clones.Run(ctx, one); err != nil {
		return cloneError(err)
	}
	all := one
	all.N, all.Jobs = *n, *jobs
	bar := a.Progress()
	all.Progress = func(up int) { bar.Update("clones", float64(up)/float64(*n)) }
	r, err := clones.Run(ctx, all)
	bar.Done()
	if err != nil {
		return cloneError(err)
	}
	if *asJSON {
		return cmdline.PrintJSON(a.Out, r)
	}
	return printClones(a.Out, r)
}

func cloneError(err error) error {
	return &workload.Error{Op: "run the clones", Err: err,
		Remedy: "'duplex run --vm --warm' shows one alone. The image needs the command cat; reading the memory of their monitors needs root."}
}

func printClones(w io.Writer, r *clones.Result) error {
	size := func(n int64) string { return units.BytesSize(float64(n)) }
	ms := func(ns int64) string { return time.Duration(ns).Round(time.Millisecond).String() }
	at := func(q float64) int { return int(q * float64(len(r.Memory)-1)) }
	half, last := at(0.5), at(1)
	_, err := fmt.Fprintf(w, "%d clones at once, the last up after %s\n"+
		"From exec until a line came back through the guest: median %s, slowest %s\n"+
		"Unique memory of a clone, all its processes: median %s, largest %s\n"+
		"  of no file (heaps, and what the guest wrote to): mean %s\n"+
		"All together: unique %s, PSS %s, swapped out %s\n"+
		"The host has %s less available\n",
		r.Clones, ms(r.StartNs), ms(r.UpNs[half]), ms(r.UpNs[last]),
		size(r.Memory[half].Unique), size(r.Memory[last].Unique), size(r.Total.Anonymous/int64(r.Clones)),
		size(r.Total.Unique), size(r.Total.PSS), size(r.Total.Swap), size(r.HostBytes))
	return err
}
