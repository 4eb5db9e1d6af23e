package runcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container"
	"github.com/duplex-run/duplex/container/program"
	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/runs"
	"github.com/duplex-run/duplex/internal/workload"
)

// RunCommand is `duplex run`.
var RunCommand = Command{
	Name:    "run",
	Args:    "IMAGE [CMD [ARG...]]",
	Summary: "Run a command of an image in a microVM (the default) or a container",
}

// Flags are the flags of `duplex run`.
type Flags struct {
	Options
	limits limitFlags
	NetworkFlags
	securityFlags
	Refusals
	isolation     string
	vm, container bool
	Warm          bool
	detach        bool
	remove        bool
	Trace         string
	// For duplex's own use: compare reads the report, and runs its probe.
	reportFD int
	probe    bool
	// For boot-report: where the guest kernel's log goes, and that the workload is
	// killed once it has written something.
	BootLog     string
	untilOutput bool
	// Of a process that detachRun has started: its first descriptor.
	detached int
	// idGiven says that somebody will ask for the run by its id.
	idGiven bool
	// img is the image, where it was looked for before anything else.
	img *image.Image
}

func (f *Flags) Register(fs *pflag.FlagSet) {
	fs.BoolVar(&f.vm, "vm", false, "run in a microVM; short for --isolation=vm")
	fs.BoolVar(&f.container, "container", false, "run in a container; short for --isolation=container")
	fs.StringVar(&f.isolation, "isolation", string(workload.VM), "`KIND` of isolation: vm or container")
	fs.BoolVarP(&f.Interactive, "interactive", "i", false, "keep stdin open; without it the command reads end of file")
	fs.BoolVarP(&f.TTY, "tty", "t", false, "give the command a terminal")
	fs.BoolVarP(&f.detach, "detach", "d", false, "run in the background and print the run's id; see 'duplex ps'")
	fs.BoolVar(&f.remove, "rm", false, "forget a detached run when it ends; one in the foreground leaves nothing anyway")
	fs.BoolVar(&f.Warm, "warm", false, "restore a booted microVM from a snapshot, which the first such run makes; see 'duplex snapshot'")
	f.Options.Register(fs)
	f.limits.Register(fs)
	f.NetworkFlags.Register(fs)
	f.securityFlags.Register(fs)
	f.Refusals.Register(fs)
	fs.StringVar(&f.Trace, "trace", "", "write every exit of the microVM to `FILE`; see 'duplex trace'")
	fs.IntVar(&f.reportFD, "report-fd", 0, "")
	fs.BoolVar(&f.probe, "probe", false, "")
	fs.StringVar(&f.BootLog, "boot-log", "", "")
	fs.BoolVar(&f.untilOutput, "until-output", false, "")
	fs.IntVar(&f.detached, "detached-fd", 0, "")
	fs.StringVar(&f.ID, "run-id", "", "")
	for _, own := range []string{"report-fd", "probe", "boot-log", "until-output", "detached-fd", "run-id"} {
		_ = fs.MarkHidden(own)
	}
}

// Pick settles the isolation; --vm, --container and --isolation must agree.
func (f *Flags) Pick(a *App, fs *pflag.FlagSet) (workload.Isolation, error) {
	if f.vm && f.container {
		return "", a.Usage("--vm and --container exclude each other")
	}
	iso := workload.Isolation(f.isolation)
	if iso != workload.VM && iso != workload.Container {
		return "", a.Usage("--isolation=%s: want vm or container", f.isolation)
	}
	short := map[bool]workload.Isolation{f.vm: workload.VM, f.container: workload.Container}[true]
	if short == "" {
		return iso, nil
	}
	if fs.Changed("isolation") && short != iso {
		return "", a.Usage("--%s and --isolation=%s exclude each other", short, iso)
	}
	return short, nil
}

// Run is `duplex run`; args are those behind the command.
func Run(ctx context.Context, a *App, args []string) error {
	var f Flags
	fs := a.Flags()
	f.Register(fs)
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	rec := &workload.Recorder{}
	exit, err := f.run(ctx, a, fs, args, rec)
	if f.reportFD > 0 {
		if rerr := writeReport(f.reportFD, rec, exit, err); rerr != nil && err == nil {
			err = &workload.Error{Op: "write the report", Err: rerr}
		}
	}
	if err != nil {
		return err
	}
	if exit.Message != "" {
		_, _ = fmt.Fprintf(a.Err, "duplex: %s\n", exit.Message)
	}
	if exit.TimedOut {
		_, _ = fmt.Fprintf(a.Err, "duplex: timed out after %v\n", f.Timeout)
	}
	if exit.OOM {
		_, _ = fmt.Fprintln(a.Err, "duplex: killed for want of memory\ngive it more with --memory")
	}
	return cmdline.Status(exit.Status())
}

// check checks the flags against each other, before anything is looked at.
func (f *Flags) check(a *App, fs *pflag.FlagSet) (workload.Isolation, error) {
	if err := f.Refusals.Check(a); err != nil {
		return "", err
	}
	iso, err := f.Pick(a, fs)
	if err != nil {
		return "", err
	}
	if err := f.Validate(a); err != nil {
		return "", err
	}
	if err := f.limits.parse(fs, iso, &f.Options); err != nil {
		return "", a.Usage("%v", err)
	}
	if fs.NArg() == 0 {
		return "", a.Usage("no image given")
	}
	if iso == workload.Container && f.Trace != "" {
		return "", a.Usage("--trace is for microVMs")
	}
	return iso, nil
}

// runner is what runs the container, and what its flags give up, a line each. Of
// a microVM only the flags are checked.
func (f *Flags) runner(a *App, fs *pflag.FlagSet, iso workload.Isolation) (r container.Runner, gives []string, err error) {
	if r.Network, err = f.NetworkFlags.Parse(a, iso); err != nil {
		return r, nil, err
	}
	if err := f.CheckWarm(a, iso); err != nil {
		return r, nil, err
	}
	r.Layers, gives, err = f.securityFlags.parse(a, fs, iso)
	return r, gives, err
}

func (f *Flags) run(ctx context.Context, a *App, fs *pflag.FlagSet, args []string, rec *workload.Recorder) (workload.Exit, error) {
	var none workload.Exit
	iso, err := f.check(a, fs)
	if err != nil {
		return none, err
	}
	if f.needsWhole(a, iso) {
		return none, becomeWhole()
	}
	runner, gives, err := f.runner(a, fs, iso)
	if err != nil {
		return none, err
	}
	if err := f.find(ctx, a, runner, fs.Arg(0)); err != nil {
		return none, err
	}
	if f.reportFD > 0 {
		unix.CloseOnExec(f.reportFD) // inherited, and not for our children
	}
	if f.detached == 0 && !f.inLab(a, iso) { // else the other one says it
		for _, g := range gives {
			a.Warn("warning: " + g)
		}
	}
	a.Sweep()
	if f.detach && f.detached == 0 {
		return none, f.detachRun(ctx, a, fs, args, iso)
	}
	f.idGiven = f.ID != ""
	if !f.idGiven {
		f.ID = NewID()
	}
	if a.Tracked, err = f.track(a, iso, fs.Arg(0)); err != nil {
		return none, err
	}
	exit, err := f.runHere(ctx, a, fs, args, iso, runner, rec)
	a.Tracked.end(endOf(exit, err))
	return exit, err
}

// endOf makes an exit of an error that is only its status.
func endOf(exit workload.Exit, err error) (workload.Exit, error) {
	var status cmdline.Status
	if errors.As(err, &status) {
		return workload.Exit{Code: int(status)}, nil
	}
	return exit, err
}

// inLab says whether the run is one of the lab machine.
func (f *Flags) inLab(a *App, iso workload.Isolation) bool {
	return a.Whole != nil && a.Whole.LabFor(f.Lab, iso == workload.VM) != ""
}

// runHere runs in this process, or in a lab machine of it.
func (f *Flags) runHere(ctx context.Context, a *App, fs *pflag.FlagSet, args []string, iso workload.Isolation, c container.Runner, rec *workload.Recorder) (workload.Exit, error) {
	var none workload.Exit
	if f.inLab(a, iso) {
		return none, a.Whole.RunInLab(ctx, f, fs, args)
	}
	spec, err := f.prepare(ctx, a, fs, iso, c.Network, rec)
	if err != nil {
		return none, err
	}
	var runner workload.Runner = c
	if iso == workload.VM {
		if runner, err = a.Whole.MicroVM(ctx, f, spec); err != nil {
			return none, err
		}
	}
	rec.Stamp(workload.PhaseImage)
	se, err := a.NewSession(ctx, &spec, rec)
	if err != nil {
		return none, err
	}
	defer se.Close()
	if f.untilOutput {
		se.endAtOutput()
	}
	exit, err := runner.Run(se.Ctx, spec, se.Stdio, rec)
	if err == nil && a.Signal.Load() != 0 && se.Ctx.Err() != nil {
		err = context.Canceled // a signal ended it, whatever the workload made of that
	}
	return exit, err
}

// prepare resolves the image and makes the workload of it and the flags.
func (f *Flags) prepare(ctx context.Context, a *App, fs *pflag.FlagSet, iso workload.Isolation, n container.Network, rec *workload.Recorder) (workload.Spec, error) {
	var none workload.Spec
	f.announce(a, n)
	if iso == workload.Container {
		program.Prefetch()
	}
	img, err := f.img, error(nil)
	if img == nil {
		img, err = a.Image(ctx, fs.Arg(0), iso == workload.Container && container.NeedsTree())
	}
	if err != nil {
		return none, err
	}
	rec.Step("find the image")
	lookUp := func(user string) (workload.User, error) { return img.User(user, f.Groups...) }
	user, err := lookUp(f.User)
	if err != nil {
		return none, err
	}
	cfg := imageConfig{Entrypoint: img.Config.Entrypoint, Cmd: img.Config.Cmd, Env: img.Config.Env, WorkingDir: img.Config.WorkingDir}
	spec, err := f.spec(a, fs, cfg, fs.Args()[1:], user)
	if err != nil {
		return none, err
	}
	f.limits.apply(&spec)
	spec.Rootfs = img.Rootfs()
	if err := a.Tracked.describe(spec, lookUp); err != nil {
		return none, err
	}
	if f.probe {
		return spec, addProbe(a, &spec)
	}
	return spec, nil
}

// CheckWarm refuses --warm where nothing is booted.
func (f *Flags) CheckWarm(a *App, iso workload.Isolation) error {
	if f.Warm && iso != workload.VM {
		return a.Usage("--warm is for microVMs")
	}
	return nil
}

const probePath = "/.duplex-probe"

// addProbe makes the isolation probe the command of s.
func addProbe(a *App, s *workload.Spec) error {
	data, err := a.Whole.Probe()
	if err != nil {
		return err
	}
	s.Extra = append(s.Extra, workload.ExtraFile{Path: probePath, Mode: 0o755, Data: data})
	s.Argv = []string{probePath}
	return nil
}

func writeReport(fd int, rec *workload.Recorder, exit workload.Exit, err error) error {
	r := workload.Report{Stamps: rec.Stamps(), Steps: rec.Steps(), Usage: rec.Usage(), Exit: exit}
	if err != nil {
		r.Error = err.Error()
	}
	f := os.NewFile(uintptr(fd), "report")
	if f == nil {
		return fmt.Errorf("descriptor %d is not open", fd)
	}
	if err := json.NewEncoder(f).Encode(r); err != nil {
		return err
	}
	return f.Close()
}

// Sweep removes what killed runs left. It is no reason to fail: what could not
// be removed now is tried again by the next run.
func (a *App) Sweep() {
	_, err := hostdir.Sweep()
	err = errors.Join(err, runs.Sweep())
	if a.Whole != nil { // or there is none
		err = errors.Join(err, a.Whole.Sweep())
	}
	if err != nil {
		_, _ = fmt.Fprintf(a.Err, "duplex: cleaning up after killed runs: %v\n", err)
	}
}
