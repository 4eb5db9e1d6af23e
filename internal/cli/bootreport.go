package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/duplex-run/duplex/bootreport"
	"github.com/duplex-run/duplex/compare"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/workload"
)

var bootReportCommand = command{
	name:    "boot-report",
	args:    "IMAGE [CMD [ARG...]]",
	summary: "Show where the start of a microVM goes, and what would make it quicker",
	run:     runBootReport,
}

// bootReportFlags are those of `duplex boot-report`: run's, and how to show it.
type bootReportFlags struct {
	runcli.Flags
	json, deterministic bool
	svg, perfetto       string
	labWhy              string // inside the lab: why; the document is for the one outside
}

// notReported are flags of run that make no sense for three boots whose output
// nobody sees.
var notReported = []string{"container", "interactive", "tty", "trace"}

func (f *bootReportFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&f.json, "json", false, "print the report as JSON")
	fs.StringVar(&f.svg, "svg", "", "also draw it into `FILE`")
	fs.StringVar(&f.perfetto, "perfetto", "", "also write it, with every exit, to `FILE` for Perfetto or chrome://tracing")
	fs.BoolVar(&f.deterministic, "deterministic", false, "in the lab, with a clock that counts instructions; implies --lab=always")
	f.Flags.Register(fs)
	fs.StringVar(&f.labWhy, "lab-why", "", "")
	for _, name := range append([]string{"lab-why"}, notReported...) {
		_ = fs.MarkHidden(name)
	}
}

// check refuses what cannot be meant. The boots take long, so files are tried first.
func (f *bootReportFlags) check(a *app, fs *pflag.FlagSet) error {
	iso, err := f.Pick(a.App, fs)
	if err != nil {
		return err
	}
	for _, name := range notReported {
		if fs.Changed(name) {
			return a.Usage("--%s: a boot report is of microVMs, whose command runs three times and is not seen", name)
		}
	}
	if iso != workload.VM {
		return a.Usage("--isolation=%s: a boot report is of microVMs", iso)
	}
	if fs.NArg() == 0 {
		return a.Usage("no image given")
	}
	if f.labWhy != "" {
		f.svg = "" // the one outside draws it
	} else if f.deterministic {
		if f.Lab == "never" {
			return a.Usage("--deterministic needs the lab, --lab=never refuses it")
		}
		f.Lab = "always"
	}
	for name, path := range map[string]string{"svg": f.svg, "perfetto": f.perfetto} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
			return &workload.Error{Op: "--" + name + " " + path, Err: fmt.Errorf("%s is no directory", filepath.Dir(path)), Remedy: "Make it first."}
		}
	}
	if _, err := f.NetworkFlags.Parse(a.App, iso); err != nil {
		return err
	}
	if err := f.CheckWarm(a.App, iso); err != nil {
		return err
	}
	return f.Validate(a.App)
}

func runBootReport(ctx context.Context, a *app, args []string) error {
	var f bootReportFlags
	fs := a.Flags()
	f.register(fs)
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if err := f.check(a, fs); err != nil {
		return err
	}
	a.App.Sweep()
	var doc *bootreport.Document
	var err error
	if why := a.LabFor(f.Lab, true); why != "" {
		doc, err = f.inLab(ctx, a, fs, args, why)
	} else {
		doc, err = f.here(ctx, a, fs)
	}
	if err != nil {
		return err
	}
	return f.show(a, doc)
}

// here makes the report on this machine.
func (f *bootReportFlags) here(ctx context.Context, a *app, fs *pflag.FlagSet) (*bootreport.Document, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the duplex binary: %w", err)
	}
	img, err := a.Image(ctx, fs.Arg(0), false)
	if err != nil {
		return nil, err
	}
	defer func() { _ = img.Close() }()
	if _, err := a.guest(ctx, &f.Options); err != nil { // fetched and built before the first boot
		return nil, err
	}
	scratch, err := hostdir.NewRun(runcli.NewID()) // a later command removes it if this one is killed
	if err != nil {
		return nil, err
	}
	defer func() { _ = scratch.Close() }()
	o := bootreport.Options{
		Exe: exe, Flags: f.forRun(fs),
		Image: compare.Image{Ref: fs.Arg(0), Digest: img.Digest}, Command: fs.Args()[1:],
		Host: describeHost(f.labWhy, f.deterministic), Dir: scratch.Path(), Warm: f.Warm,
	}
	p := a.Progress()
	o.Progress = func(kind string, n, of int) { p.Update(fmt.Sprintf("boot %d of %d (%s)", n+1, of, kind), -1) }
	doc, err := bootreport.Run(ctx, o)
	p.Done()
	if err != nil || f.perfetto == "" {
		return doc, err
	}
	write := func(w io.Writer) error { return bootreport.WritePerfetto(w, doc, o.TracePath()) }
	if err := replaceFile(f.perfetto, write); err != nil {
		return nil, &workload.Error{Op: "--perfetto " + f.perfetto, Err: err}
	}
	return doc, nil
}

// forRun returns the flags that every boot gets: those given that are not the
// report's own.
func (f *bootReportFlags) forRun(fs *pflag.FlagSet) []string {
	own := []string{"json", "svg", "perfetto", "deterministic", "lab-why", "isolation", "vm"}
	return passOn(fs, func(name string) bool { return !slices.Contains(own, name) })
}

// inLab makes the same report in the lab and reads the document it prints.
func (f *bootReportFlags) inLab(ctx context.Context, a *app, fs *pflag.FlagSet, args []string, why string) (*bootreport.Document, error) {
	var out bytes.Buffer
	p := a.Progress()
	p.Update("three boots in the lab", -1)
	defer p.Done()
	stdout := a.Out
	a.Out = &out
	err := a.runInLab(ctx, labJob{
		fs: fs, args: args, image: fs.Arg(0), opts: &f.Options, extra: []string{"--lab-why=" + why},
		output: []string{f.perfetto}, deterministic: f.deterministic,
	})
	a.Out = stdout
	if err != nil && !errors.Is(err, cmdline.Status(0)) {
		return nil, err
	}
	doc := new(bootreport.Document)
	if err := json.Unmarshal(out.Bytes(), doc); err != nil {
		return nil, fmt.Errorf("read the report from the lab: %w", err)
	}
	doc.Image.Ref = fs.Arg(0) // there it has only its digest
	return doc, nil
}

// show prints the report.
func (f *bootReportFlags) show(a *app, doc *bootreport.Document) error {
	if f.svg != "" {
		write := func(w io.Writer) error { return bootreport.WriteSVG(w, doc) }
		if err := replaceFile(f.svg, write); err != nil {
			return &workload.Error{Op: "--svg " + f.svg, Err: err}
		}
	}
	if f.json || f.labWhy != "" {
		return cmdline.PrintJSON(a.Out, doc)
	}
	return bootreport.WriteText(a.Out, doc, bootreport.Style{Width: columns(a.Out), Colour: wantColour(a.Out)})
}

// columns is the width of the terminal that w is, or what COLUMNS says.
func columns(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return width
		}
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil {
		return min(n, 1000)
	}
	return bootreport.DefaultWidth
}
