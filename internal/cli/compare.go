package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/duplex-run/duplex/compare"
	"github.com/duplex-run/duplex/compare/isolation"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/hostcheck"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm/probe"
)

var compareCommand = command{
	name:    "compare",
	args:    "[IMAGE [CMD [ARG...]]]",
	summary: "Run an image in a microVM, booted and restored, and in a container, and compare",
	run:     runCompare,
}

// defaultImage is what compare runs when no image is named.
const defaultImage = "builtin"

// compareFlags are the flags of `duplex compare`.
type compareFlags struct {
	runcli.Options
	runcli.NetworkFlags
	sides         []string
	n, warmup     int
	seed          uint64
	json          bool
	output        string
	noProbe       bool
	ignoreFailure bool
	deterministic bool
	// For duplex's own use: the comparison inside the lab gets told why it is
	// there, prints the document, and shows progress although its stderr is a
	// stream of the lab.
	labWhy       string
	showProgress bool
}

func (f *compareFlags) register(fs *pflag.FlagSet) {
	fs.IntVarP(&f.n, "runs", "n", 10, "`N` samples of each side")
	fs.IntVar(&f.warmup, "warmup", 1, "`N` runs of each side before them, thrown away")
	fs.Uint64Var(&f.seed, "seed", 0, "seed `N` of the order and the statistics; 0 draws one")
	fs.StringSliceVar(&f.sides, "isolation", nil, "two or three `KINDS` to compare, of vm, vm-warm (restored from a snapshot), container, and container-no-LAYER (seccomp, landlock, ...); twice the same shows the noise (A/A) (default vm,vm-warm,container)")
	fs.BoolVar(&f.json, "json", false, "print the whole document as JSON instead of tables")
	fs.StringVar(&f.output, "output", "", "also write the JSON document to `FILE`")
	fs.BoolVar(&f.noProbe, "no-probe", false, "leave the isolation part out")
	fs.BoolVar(&f.ignoreFailure, "ignore-failure", false, "count runs whose command ends with a status but 0")
	fs.BoolVar(&f.deterministic, "deterministic", false, "in the lab, with a clock that counts instructions; implies --lab=always")
	fs.BoolVarP(&f.Interactive, "interactive", "i", false, "read stdin once and give it to every run")
	f.shared(fs)
	fs.StringVar(&f.labWhy, "lab-why", "", "")
	fs.BoolVar(&f.showProgress, "progress", false, "")
	_ = fs.MarkHidden("lab-why")
	_ = fs.MarkHidden("progress")
}

// shared are the flags that every `duplex run` gets too.
func (f *compareFlags) shared(fs *pflag.FlagSet) {
	f.Options.Register(fs)
	f.NetworkFlags.Register(fs)
}

// columns are the sides to compare: those asked for, or all that are possible.
func (f *compareFlags) columns(a *app) ([]compare.Column, error) {
	if f.sides == nil {
		return []compare.Column{compare.VM, compare.WarmVM, compare.Container}, nil
	}
	if len(f.sides) < 2 || len(f.sides) > compare.MaxColumns {
		return nil, a.Usage("--isolation=%s: want two or three, as vm,container", strings.Join(f.sides, ","))
	}
	var sides []compare.Column
	for _, s := range f.sides {
		c := compare.Column(s)
		if !c.Valid() {
			return nil, a.Usage("--isolation: %q: want vm, vm-warm, container, or container-no- and one of %s", s, strings.Join(compare.Layers(), ", "))
		}
		sides = append(sides, c)
	}
	return sides, nil
}

func (f *compareFlags) check(a *app) ([]compare.Column, error) {
	sides, err := f.columns(a)
	if err != nil {
		return nil, err
	}
	if f.n < 1 || f.n > 100000 {
		return sides, a.Usage("--runs=%d: out of range 1 to 100000", f.n)
	}
	if f.warmup < 0 || f.warmup > 1000 {
		return sides, a.Usage("--warmup=%d: out of range 0 to 1000", f.warmup)
	}
	if f.labWhy != "" {
		f.output = "" // the one outside writes it
	} else if f.deterministic {
		if f.Lab == "never" {
			return sides, a.Usage("--deterministic needs the lab, --lab=never refuses it")
		}
		f.Lab = "always"
	}
	for _, side := range sides { // a side that refuses the network fails before any run
		if _, err := f.NetworkFlags.Parse(a.App, side.Isolation()); err != nil {
			return sides, err
		}
	}
	return sides, f.Validate(a.App)
}

func runCompare(ctx context.Context, a *app, args []string) error {
	var f compareFlags
	fs := a.Flags()
	f.register(fs)
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	sides, err := f.check(a)
	if err != nil {
		return err
	}
	for f.seed == 0 {
		f.seed = rand.Uint64() >> 32 // short enough to type again
	}
	var doc *compare.Document
	wantVM := slices.Contains(sides, compare.VM) || slices.Contains(sides, compare.WarmVM)
	if why := a.LabFor(f.Lab, wantVM); why != "" {
		doc, err = f.inLab(ctx, a, fs, args, why)
	} else {
		doc, err = f.here(ctx, a, fs, sides)
	}
	if doc != nil && (err == nil || len(doc.Runs) > 0 || errors.Is(err, context.Canceled)) {
		err = errors.Join(err, f.show(a, doc))
	}
	return err
}

// show prints the document and says with its status whether both sides were
// measured.
func (f *compareFlags) show(a *app, doc *compare.Document) error {
	if f.output != "" {
		write := func(w io.Writer) error { return compare.WriteJSON(w, doc) }
		if err := replaceFile(f.output, write); err != nil {
			return &workload.Error{Op: "--output " + f.output, Err: err}
		}
	}
	var err error
	if f.json {
		err = compare.WriteJSON(a.Out, doc)
	} else {
		err = compare.Report(a.Out, doc, wantColour(a.Out))
	}
	if err != nil {
		return err
	}
	for side, failed := range doc.Summary.Failed {
		if failed > 0 && failed == doc.Measured(side) {
			return cmdline.Status(workload.StatusError)
		}
	}
	return nil
}

// replaceFile writes path in one step, so that nobody reads half of it.
func replaceFile(path string, write func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".duplex-output-")
	if err != nil {
		return err
	}
	err = write(tmp)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// wantColour follows no-color.org: a terminal, and NO_COLOR not set.
func wantColour(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
}

func imageArg(fs *pflag.FlagSet) (ref string, cmd []string) {
	if fs.NArg() == 0 {
		return defaultImage, nil
	}
	return fs.Arg(0), fs.Args()[1:]
}

// here compares on this machine.
func (f *compareFlags) here(ctx context.Context, a *app, fs *pflag.FlagSet, sides []compare.Column) (*compare.Document, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the duplex binary: %w", err)
	}
	ref, cmd := imageArg(fs)
	needTree := slices.ContainsFunc(sides, compare.Column.Container) && os.Geteuid() != 0
	img, err := a.Image(ctx, ref, needTree)
	if err != nil {
		return nil, err
	}
	defer func() { _ = img.Close() }()
	o := compare.Options{
		Exe: exe, Sides: sides, N: f.n, Warmup: f.warmup, Seed: f.seed,
		Flags: f.forRun(fs), Image: compare.Image{Ref: ref, Digest: img.Digest}, Command: cmd,
		IgnoreFailure: f.ignoreFailure, NoProbe: f.noProbe, Host: f.host(),
	}
	if f.Interactive {
		in, err := spool(a.In)
		if err != nil {
			return nil, err
		}
		defer func() { _ = in.Close() }()
		o.Stdin = fdPath(in)
	}
	bar := a.compareBar(f.showProgress)
	o.Progress = bar.show
	doc, err := compare.Run(ctx, o)
	bar.done()
	return doc, err
}

// spool copies r to a file without a name.
func spool(r io.Reader) (*os.File, error) {
	f, err := os.CreateTemp("", "duplex-stdin-")
	if err != nil {
		return nil, fmt.Errorf("keep stdin: %w", err)
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = io.Copy(f, r)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keep stdin: %w", err), f.Close())
	}
	return f, nil
}

// fdPath names an open file; opening that gives a file at its first byte.
func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// forRun returns the flags that every `duplex run` gets: those both commands
// have, as given here.
func (f *compareFlags) forRun(fs *pflag.FlagSet) []string {
	shared := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(compareFlags).shared(shared)
	flags := passOn(fs, func(name string) bool { return shared.Lookup(name) != nil })
	if f.Interactive {
		flags = append(flags, "--interactive")
	}
	return flags
}

// passOn returns the flags that were given and are wanted, for a `duplex run` on
// this machine.
func passOn(fs *pflag.FlagSet, wanted func(name string) bool) []string {
	flags := []string{"--lab=never"}
	fs.Visit(func(fl *pflag.Flag) {
		if fl.Name == "lab" || !wanted(fl.Name) {
			return
		}
		values := []string{fl.Value.String()}
		if list, ok := fl.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			flags = append(flags, "--"+fl.Name+"="+v)
		}
	})
	return flags
}

// inLab runs the same command line inside the lab, both sides together, and
// reads the document it prints.
func (f *compareFlags) inLab(ctx context.Context, a *app, fs *pflag.FlagSet, args []string, why string) (*compare.Document, error) {
	ref, _ := imageArg(fs)
	extra := []string{"--json", "--lab-why=" + why, fmt.Sprintf("--seed=%d", f.seed)}
	if a.terminal() != nil {
		extra = append(extra, "--progress")
	}
	var out bytes.Buffer
	stdout := a.Out
	a.Out = &out
	err := a.runInLab(ctx, labJob{fs: fs, args: args, image: ref, opts: &f.Options, extra: extra, deterministic: f.deterministic})
	a.Out = stdout
	if errors.Is(err, cmdline.Status(0)) {
		err = nil
	}
	if out.Len() == 0 {
		return nil, err
	}
	doc := new(compare.Document)
	if jerr := json.Unmarshal(out.Bytes(), doc); jerr != nil {
		return nil, errors.Join(err, fmt.Errorf("read the document from the lab: %w", jerr))
	}
	doc.Image.Ref = ref // there it has only its digest
	return doc, err
}

// host describes the machine this process runs on.
func (f *compareFlags) host() compare.Host { return describeHost(f.labWhy, f.deterministic) }

// describeHost describes the machine this process runs on; labWhy is empty unless
// that is the lab.
func describeHost(labWhy string, deterministic bool) compare.Host {
	v := isolation.ReadValues("/proc")
	cgroup, _, _ := strings.Cut(hostcheck.Cgroup().Detail, ",")
	h := compare.Host{
		CPU: v.CPUModel, CPUs: runtime.NumCPU(), Memory: v.MemTotal << 10,
		Kernel: isolation.KernelRelease(), KVM: kvmVerdict(), Cgroup: cgroup,
	}
	h.BootID, _ = isolation.ReadBootID() // empty where /proc hides it
	if labWhy != "" {
		h.Lab = &compare.Lab{Why: labWhy, Deterministic: deterministic}
	}
	return h
}

// kvmVerdict says what the probe of KVM found.
func kvmVerdict() string {
	r, err := probe.Run()
	if err != nil {
		return err.Error()
	}
	return r.Why
}

// terminal returns stderr when it is one.
func (a *app) terminal() *os.File {
	if f, ok := a.Err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// compareBar draws the progress of a comparison, between the runs and never
// while one is measured.
type compareBar struct {
	w   io.Writer // nil draws nothing
	bar *progressbar.ProgressBar
}

func (a *app) compareBar(always bool) *compareBar {
	if a.terminal() == nil && !always {
		return &compareBar{}
	}
	return &compareBar{w: a.Err}
}

func (b *compareBar) show(p compare.Progress) {
	if b.w == nil {
		return
	}
	if b.bar == nil {
		b.bar = progressbar.NewOptions(p.Total,
			progressbar.OptionSetWriter(b.w),
			progressbar.OptionSetWidth(20),
			progressbar.OptionShowCount(),
			progressbar.OptionUseANSICodes(true),
		)
	}
	b.bar.Describe(fmt.Sprintf("%-9s %-9s", p.What, p.Isolation))
	_ = b.bar.Set(p.Done) // drawing fails when the terminal is gone: no harm
}

func (b *compareBar) done() {
	if b.bar != nil {
		_ = b.bar.Clear()
	}
}
