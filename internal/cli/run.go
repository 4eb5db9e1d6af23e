package cli

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
	"github.com/duplex-run/duplex/internal/embedded"
	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/runs"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/microvm"
	"github.com/duplex-run/duplex/network/bridge"
)

var runCommand = command{
	name:    "run",
	args:    "IMAGE [CMD [ARG...]]",
	summary: "Run a command of an image in a microVM (the default) or a container",
	run:     runRun,
}

// runFlags are the flags of `duplex run`.
type runFlags struct {
	runOptions
	limits limitFlags
	networkFlags
	securityFlags
	refusals
	layers        container.Layers
	isolation     string
	vm, container bool
	warm          bool
	detach        bool
	remove        bool
	trace         string
	// For duplex's own use: compare reads the report, and runs its probe.
	reportFD int
	probe    bool
	// For boot-report: where the guest kernel's log goes, and that the workload is
	// killed once it has written something.
	bootLog     string
	untilOutput bool
	// Of a process that detachRun has started: its first descriptor.
	detached int
	// idGiven says that somebody will ask for the run by its id.
	idGiven bool
}

func (f *runFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&f.vm, "vm", false, "run in a microVM; short for --isolation=vm")
	fs.BoolVar(&f.container, "container", false, "run in a container; short for --isolation=container")
	fs.StringVar(&f.isolation, "isolation", string(workload.VM), "`KIND` of isolation: vm or container")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "keep stdin open; without it the command reads end of file")
	fs.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	fs.BoolVarP(&f.detach, "detach", "d", false, "run in the background and print the run's id; see 'duplex ps'")
	fs.BoolVar(&f.remove, "rm", false, "forget a detached run when it ends; one in the foreground leaves nothing anyway")
	fs.BoolVar(&f.warm, "warm", false, "restore a booted microVM from a snapshot, which the first such run makes; see 'duplex snapshot'")
	f.runOptions.register(fs)
	f.limits.register(fs)
	f.networkFlags.register(fs)
	f.securityFlags.register(fs)
	f.refusals.register(fs)
	fs.StringVar(&f.trace, "trace", "", "write every exit of the microVM to `FILE`; see 'duplex trace'")
	fs.IntVar(&f.reportFD, "report-fd", 0, "")
	fs.BoolVar(&f.probe, "probe", false, "")
	fs.StringVar(&f.bootLog, "boot-log", "", "")
	fs.BoolVar(&f.untilOutput, "until-output", false, "")
	fs.IntVar(&f.detached, "detached-fd", 0, "")
	fs.StringVar(&f.id, "run-id", "", "")
	for _, own := range []string{"report-fd", "probe", "boot-log", "until-output", "detached-fd", "run-id"} {
		_ = fs.MarkHidden(own)
	}
}

// pick settles the isolation; --vm, --container and --isolation must agree.
func (f *runFlags) pick(a *app, fs *pflag.FlagSet) (workload.Isolation, error) {
	if f.vm && f.container {
		return "", a.usage("--vm and --container exclude each other")
	}
	iso := workload.Isolation(f.isolation)
	if iso != workload.VM && iso != workload.Container {
		return "", a.usage("--isolation=%s: want vm or container", f.isolation)
	}
	short := map[bool]workload.Isolation{f.vm: workload.VM, f.container: workload.Container}[true]
	if short == "" {
		return iso, nil
	}
	if fs.Changed("isolation") && short != iso {
		return "", a.usage("--%s and --isolation=%s exclude each other", short, iso)
	}
	return short, nil
}

func runRun(ctx context.Context, a *app, args []string) error {
	var f runFlags
	fs := a.flags()
	f.register(fs)
	if err := a.parse(fs, args); err != nil {
		return err
	}
	if f.reportFD > 0 {
		unix.CloseOnExec(f.reportFD) // inherited, and not for our children
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
		_, _ = fmt.Fprintf(a.err, "duplex: %s\n", exit.Message)
	}
	if exit.TimedOut {
		_, _ = fmt.Fprintf(a.err, "duplex: timed out after %v\n", f.timeout)
	}
	if exit.OOM {
		_, _ = fmt.Fprintln(a.err, "duplex: killed for want of memory\ngive it more with --memory")
	}
	return statusError(exit.Status())
}

func (f *runFlags) run(ctx context.Context, a *app, fs *pflag.FlagSet, args []string, rec *workload.Recorder) (workload.Exit, error) {
	var none workload.Exit
	if err := f.refusals.check(a); err != nil {
		return none, err
	}
	iso, err := f.pick(a, fs)
	if err != nil {
		return none, err
	}
	if err := f.validate(a); err != nil {
		return none, err
	}
	if err := f.limits.parse(fs, iso, &f.runOptions); err != nil {
		return none, a.usage("%v", err)
	}
	if fs.NArg() == 0 {
		return none, a.usage("no image given")
	}
	if iso == workload.Container && f.trace != "" {
		return none, a.usage("--trace is for microVMs")
	}
	nets, err := f.networkFlags.parse(a, iso)
	if err != nil {
		return none, err
	}
	if err := f.checkWarm(a, iso); err != nil {
		return none, err
	}
	layers, gives, err := f.securityFlags.parse(a, fs, iso)
	if err != nil {
		return none, err
	}
	f.layers = layers
	if f.detached == 0 && a.labFor(f.lab, iso == workload.VM) == "" { // else the other one says it
		for _, g := range gives {
			a.warn("warning: " + g)
		}
	}
	a.sweep()
	if f.detach && f.detached == 0 {
		return none, f.detachRun(ctx, a, fs, args, iso)
	}
	f.idGiven = f.id != ""
	if !f.idGiven {
		f.id = newID()
	}
	if a.tracked, err = f.track(a, iso, fs.Arg(0)); err != nil {
		return none, err
	}
	exit, err := f.runHere(ctx, a, fs, args, iso, nets, rec)
	a.tracked.end(endOf(exit, err))
	return exit, err
}

// endOf makes an exit of an error that is only its status.
func endOf(exit workload.Exit, err error) (workload.Exit, error) {
	var status statusError
	if errors.As(err, &status) {
		return workload.Exit{Code: int(status)}, nil
	}
	return exit, err
}

// runHere runs in this process, or in a lab machine of it.
func (f *runFlags) runHere(ctx context.Context, a *app, fs *pflag.FlagSet, args []string, iso workload.Isolation, nets networks, rec *workload.Recorder) (workload.Exit, error) {
	var none workload.Exit
	if a.labFor(f.lab, iso == workload.VM) != "" {
		exe, _, err := here()
		if err != nil {
			return none, err
		}
		if err := a.tracked.inLab(exe, fs.Args()[1:]); err != nil {
			return none, err
		}
		return none, a.runInLab(ctx, labJob{
			fs: fs, args: args, image: fs.Arg(0), opts: &f.runOptions, output: []string{f.trace, f.bootLog},
			last: []string{"--detach=false", "--detached-fd=0", "--run-id=" + f.id},
		})
	}
	runner, spec, err := f.prepare(ctx, a, fs, iso, nets, rec)
	if err != nil {
		return none, err
	}
	rec.Stamp(workload.PhaseImage)
	se, err := a.newSession(ctx, &spec, rec)
	if err != nil {
		return none, err
	}
	defer se.close()
	if f.untilOutput {
		se.endAtOutput()
	}
	exit, err := runner.Run(se.ctx, spec, se.stdio, rec)
	if err == nil && a.signal.Load() != 0 && se.ctx.Err() != nil {
		err = context.Canceled // a signal ended it, whatever the workload made of that
	}
	return exit, err
}

// prepare resolves the image and, for a microVM, the kernel and the initramfs.
func (f *runFlags) prepare(ctx context.Context, a *app, fs *pflag.FlagSet, iso workload.Isolation, nets networks, rec *workload.Recorder) (workload.Runner, workload.Spec, error) {
	var none workload.Spec
	f.announce(a, nets.container)
	if iso == workload.Container {
		program.Prefetch()
	}
	img, err := a.image(ctx, fs.Arg(0), iso == workload.Container && container.NeedsTree())
	if err != nil {
		return nil, none, err
	}
	rec.Step("find the image")
	lookUp := func(user string) (workload.User, error) { return img.User(user, f.groups...) }
	user, err := lookUp(f.user)
	if err != nil {
		return nil, none, err
	}
	cfg := imageConfig{Entrypoint: img.Config.Entrypoint, Cmd: img.Config.Cmd, Env: img.Config.Env, WorkingDir: img.Config.WorkingDir}
	spec, err := f.spec(a, fs, cfg, fs.Args()[1:], user)
	if err != nil {
		return nil, none, err
	}
	f.limits.apply(&spec)
	spec.Rootfs = img.Rootfs()
	if err := a.tracked.describe(spec, lookUp); err != nil {
		return nil, none, err
	}
	if f.probe {
		if err := addProbe(&spec); err != nil {
			return nil, none, err
		}
	}
	if iso == workload.Container {
		return container.Runner{Network: nets.container, Layers: f.layers}, spec, nil
	}
	guest, err := a.guest(ctx, &f.runOptions)
	if err != nil {
		return nil, none, err
	}
	r := microvm.Runner{
		Kernel: guest.kernel, Initrd: guest.initrd, Network: nets.vm, Trace: f.trace, NoJail: f.noJail, Warn: a.warn, Version: version(),
	}
	if f.warm {
		if r.Snapshot, err = a.warm(ctx, r, spec); err != nil {
			return nil, none, err
		}
	}
	if f.bootLog != "" { // last: a snapshot is not made of it
		r.Log, err = logTo(f.bootLog)
	}
	return r, spec, err
}

// checkWarm refuses --warm where nothing is booted.
func (f *runFlags) checkWarm(a *app, iso workload.Isolation) error {
	if f.warm && iso != workload.VM {
		return a.usage("--warm is for microVMs")
	}
	return nil
}

// logTo makes the file at path and returns what appends to it. It is closed with
// the process.
func logTo(path string) (func(string), error) {
	out, err := os.Create(path)
	if err != nil {
		return nil, &workload.Error{Op: "write the guest's log", Err: err}
	}
	return func(text string) { _, _ = out.WriteString(text) }, nil // a log cut short reads as one
}

const probePath = "/.duplex-probe"

// addProbe makes the isolation probe the command of s.
func addProbe(s *workload.Spec) error {
	data, err := embedded.Probe()
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

// sweep removes what killed runs left. It is no reason to fail: what could not
// be removed now is tried again by the next run.
func (a *app) sweep() {
	_, err := hostdir.Sweep()
	if err = errors.Join(err, runs.Sweep(), bridge.Sweep()); err != nil {
		_, _ = fmt.Fprintf(a.err, "duplex: cleaning up after killed runs: %v\n", err)
	}
}
