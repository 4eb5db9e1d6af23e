package ocicli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/oci"
)

const ociSummary = "Be an OCI runtime for podman, docker and containerd: bundles, runc's commands"

// ociCommands is the table of `duplex oci`; they share the flags of ociGlobals,
// which may come before the command or after it.
func ociCommands() []ociSub {
	return []ociSub{
		{"run", "CONTAINER", "Create and start a container, wait for it, delete it", ociRunRun},
		{"create", "CONTAINER", "Create a container of a bundle", ociCreate},
		{"start", "CONTAINER", "Execute the program of a created container", ociStart},
		{"state", "CONTAINER", "Print the state of a container as JSON", ociState},
		{"kill", "CONTAINER [SIGNAL]", "Send a signal (TERM) to a container's first process", ociKill},
		{"delete", "CONTAINER", "Remove a container that has stopped", ociDelete},
		{"list", "", "List the containers", ociList},
		{"ps", "CONTAINER [PS ARGUMENTS]", "List the processes of a container", ociPS},
		{"exec", "CONTAINER PROGRAM [ARG...]", "Run another program in a running container", ociExec},
		{"pause", "CONTAINER", "Stop the processes of a container", ociPause},
		{"resume", "CONTAINER", "Let the processes of a paused container go on", ociResume},
		{"update", "CONTAINER", "Change the limits of a container", ociUpdate},
		{"events", "CONTAINER", "Print what a container uses, and when it ran out of memory", ociEvents},
		{"features", "", "Print what this runtime knows as JSON", ociFeatures},
		{"spec", "", "Write an example config.json", ociSpec},
	}
}

// ociHidden is the command that `duplex oci` runs in a microVM.
var ociHidden = ociSub{oci.GuestCommand, "CONTAINER", "Be the runtime in a microVM", ociInGuest}

// ociInGuest has the streams that the container's program is to have.
func ociInGuest(ctx context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	if err := o.parse(fs, args, 0); err != nil {
		return err
	}
	console := newOCIConsole(o)
	defer console.close()
	status, err := oci.InGuest(ctx, oci.CreateOptions{
		Root: o.root, ID: fs.Arg(0), Warn: o.warnLog, Isolation: workload.Container, Terminal: console.attach,
	})
	if err != nil {
		return o.fail(err)
	}
	return cmdline.Status(status)
}

// ociSub is one command of `duplex oci`.
type ociSub struct {
	name, args, summary string
	run                 func(ctx context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error
}

// ociApp is one `duplex oci` command under way.
type ociApp struct {
	*app
	root, logFile, logFormat string
	debug, systemd           bool
	rootless                 string
	isolation, kernel        string
}

func (o *ociApp) register(fs *pflag.FlagSet) {
	fs.StringVar(&o.root, "root", o.root, "keep the state of containers in `DIR`")
	fs.StringVar(&o.logFile, "log", o.logFile, "write errors and warnings to `FILE` too")
	fs.StringVar(&o.logFormat, "log-format", o.logFormat, "`FORMAT` of the log: text or json")
	fs.BoolVar(&o.debug, "debug", o.debug, "accepted for runc's sake: there is nothing more to say")
	fs.BoolVar(&o.systemd, "systemd-cgroup", o.systemd, "refused: cgroups are made without systemd")
	fs.StringVar(&o.isolation, "isolation", o.isolation, "`KIND` of a container that is created: container or vm; the bundle's annotation "+oci.IsolationAnnotation+" without")
	fs.StringVar(&o.kernel, "kernel", o.kernel, "kernel of a microVM: a `FILE`, or a name of 'duplex kernel ls'")
	fs.StringVar(&o.rootless, "rootless", o.rootless, "accepted for runc's sake: `BOOL` or auto")
}

func ociRun(ctx context.Context, a *app, args []string) error {
	a.cmd = subcommand{name: "oci", args: "COMMAND [FLAGS] [ARGS]", summary: ociSummary}
	o := &ociApp{app: a, root: oci.DefaultRoot(), logFormat: "text", rootless: "auto"}
	fs := a.flags()
	o.register(fs)
	version := fs.BoolP("version", "v", false, "print the version")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp) || err == nil && fs.NArg() == 0 && !*version || err == nil && fs.Arg(0) == "help":
		_, werr := fmt.Fprint(a.out, ociHelp(fs))
		return werr
	case err != nil:
		return a.usage("%v", err)
	case *version:
		_, werr := fmt.Fprintf(a.out, "duplex oci version %s\nspec: %s\n", cmdline.Version(), oci.SpecVersion)
		return werr
	}
	for _, c := range append(ociCommands(), ociHidden) {
		if c.name == fs.Arg(0) {
			a.cmd = subcommand{name: "oci " + c.name, args: c.args, summary: c.summary}
			return o.log(o.dispatch(ctx, c, fs.Args()[1:]))
		}
	}
	return o.log(&workload.Error{Op: fmt.Sprintf("unknown command %q", "oci "+fs.Arg(0)), Remedy: "'duplex oci --help' lists the commands"})
}

func ociHelp(fs *pflag.FlagSet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n\nUsage: duplex oci [FLAGS] COMMAND [FLAGS] [ARGS]\n\nCommands:\n", ociSummary)
	for _, c := range ociCommands() {
		fmt.Fprintf(&b, "  %-9s %s\n", c.name, c.summary)
	}
	fmt.Fprintf(&b, "\nFlags of every command:\n%s\n'duplex oci COMMAND --help' says more.\n", fs.FlagUsages())
	return b.String()
}

func (o *ociApp) dispatch(ctx context.Context, c ociSub, args []string) error {
	fs := o.flags()
	fs.SetInterspersed(c.name != "exec") // runc takes flags behind the container's id
	o.register(fs)
	return c.run(ctx, o, fs, args)
}

// parse parses the flags of a command and takes its container's id; more says
// how many arguments may follow.
func (o *ociApp) parse(fs *pflag.FlagSet, args []string, more int) error {
	if err := o.app.parse(fs, args); err != nil {
		return err
	}
	switch {
	case o.logFormat != "text" && o.logFormat != "json":
		return o.usage("--log-format=%s: want text or json", o.logFormat)
	case o.systemd:
		return &workload.Error{Op: "--systemd-cgroup", Err: errors.New("duplex makes cgroups without systemd"),
			Remedy: "Have the engine use cgroupfs: podman --cgroup-manager=cgroupfs, docker native.cgroupdriver=cgroupfs, containerd SystemdCgroup=false."}
	case more >= 0 && fs.NArg() == 0:
		return o.usage("no container id given")
	case more >= 0 && fs.NArg() > 1+more:
		return o.usage("too many arguments: %q", fs.Args()[1+more:])
	}
	return nil
}

// log writes an error to the log as well; engines read it there.
func (o *ociApp) log(err error) error {
	var status cmdline.Status
	if err != nil && !errors.As(err, &status) {
		o.logLine("error", err.Error())
	}
	return err
}

// warnLog says what the user should know, in the log when there is one.
func (o *ociApp) warnLog(text string) {
	if o.logFile == "" {
		o.warn(text)
		return
	}
	o.logLine("warning", text)
}

// logLine appends a line in the form of runc's log. That it cannot is told on
// standard error.
func (o *ociApp) logLine(level, msg string) {
	if o.logFile == "" {
		return
	}
	now := time.Now().UTC().Format(time.RFC3339)
	line := fmt.Sprintf("time=%q level=%s msg=%q\n", now, level, msg)
	if o.logFormat == "json" {
		data, err := json.Marshal(map[string]string{"level": level, "msg": msg, "time": now})
		if err != nil {
			return // strings only
		}
		line = string(data) + "\n"
	}
	f, err := os.OpenFile(o.logFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(line)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		o.warn(fmt.Sprintf("--log: %v", err))
	}
}

// fail gives an error of package oci its place in duplex's own form.
func (o *ociApp) fail(err error) error {
	var werr *workload.Error
	if err == nil || errors.As(err, &werr) {
		return err
	}
	out := &workload.Error{Op: o.cmd.name, Err: err}
	switch {
	case errors.Is(err, oci.ErrNotExist):
		out.Remedy = "'duplex oci list' shows the containers; --root says where they are kept."
	case errors.Is(err, oci.ErrExist):
		out.Remedy = "Take another id, or remove that container: duplex oci delete."
	}
	return out
}

// open opens the container that is the first argument.
func (o *ociApp) open(fs *pflag.FlagSet, lock bool) (*oci.Container, error) {
	c, err := oci.Open(o.root, fs.Arg(0), lock)
	return c, o.fail(err)
}

func (o *ociApp) createFlags(fs *pflag.FlagSet, opts *oci.CreateOptions) {
	fs.StringVarP(&opts.Bundle, "bundle", "b", ".", "the bundle is in `DIR`")
	fs.StringVar(&opts.PidFile, "pid-file", "", "write the id of the first process to `FILE`")
	fs.StringVar(&opts.ConsoleSocket, "console-socket", "", "send the terminal to the Unix socket `PATH`")
	fs.IntVar(&opts.PreserveFDs, "preserve-fds", 0, "hand `N` descriptors from 3 on to the program")
	fs.BoolVar(&opts.NoNewKeyring, "no-new-keyring", false, "keep the session keyring")
	fs.Bool("no-pivot", false, "refused: a root that is only covered can be uncovered")
}

// createOptions finishes opts when the flags are parsed.
func (o *ociApp) createOptions(fs *pflag.FlagSet, opts *oci.CreateOptions) error {
	if v, _ := fs.GetBool("no-pivot"); v {
		return o.usage("--no-pivot is not supported: a root that is only covered can be uncovered")
	}
	if opts.PreserveFDs < 0 || opts.PreserveFDs > 1<<16 {
		return o.usage("--preserve-fds=%d: out of range", opts.PreserveFDs)
	}
	opts.Root, opts.ID, opts.Warn = o.root, fs.Arg(0), o.warnLog
	opts.Isolation, opts.Guest = workload.Isolation(o.isolation), o.guestOf
	return nil
}

// guestOf finds what a microVM boots. A program without microVMs becomes the one
// that has them.
func (o *ociApp) guestOf(ctx context.Context) (oci.Guest, error) {
	if o.guest != nil {
		return o.guest(ctx, o.kernel)
	}
	return oci.Guest{}, cmdline.BecomeWhole("run the bundle in a microVM", os.Args[1:])
}

func ociCreate(ctx context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	var opts oci.CreateOptions
	o.createFlags(fs, &opts)
	if err := o.parse(fs, args, 0); err != nil {
		return err
	}
	if err := o.createOptions(fs, &opts); err != nil {
		return err
	}
	c, err := oci.Create(ctx, opts)
	if err != nil {
		return o.fail(err)
	}
	c.Close()
	return nil
}

func ociStart(ctx context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	return o.locked(fs, args, func(c *oci.Container) error { return c.Start(ctx) })
}

func ociState(_ context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	if err := o.parse(fs, args, 0); err != nil {
		return err
	}
	c, err := o.open(fs, false)
	if err != nil {
		return err
	}
	return cmdline.PrintJSON(o.out, c.State())
}

func ociKill(_ context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	all := fs.BoolP("all", "a", false, "send it to every process of the container")
	if err := o.parse(fs, args, 1); err != nil {
		return err
	}
	name := "TERM"
	if fs.NArg() > 1 {
		name = fs.Arg(1)
	}
	sig, err := cmdline.ParseSignal(name)
	if err != nil {
		return o.usage("%v", err)
	}
	c, err := o.open(fs, false)
	if err != nil {
		return err
	}
	return o.fail(c.Kill(sig, *all))
}

func ociDelete(ctx context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	force := fs.BoolP("force", "f", false, "kill a container that has not stopped; one that is not there is no error")
	if err := o.parse(fs, args, 0); err != nil {
		return err
	}
	c, err := o.open(fs, true)
	if err != nil {
		if *force && errors.Is(err, oci.ErrNotExist) {
			return nil
		}
		return err
	}
	defer c.Close()
	if c.VM != nil && o.guest == nil {
		return cmdline.BecomeWhole("delete the microVM", os.Args[1:])
	}
	err = c.Delete(ctx, *force, o.warnLog)
	if errors.Is(err, oci.ErrNotStopped) {
		return &workload.Error{Op: o.cmd.name, Err: err, Remedy: "End it first, by 'duplex oci kill', or have delete --force do it."}
	}
	return o.fail(err)
}

// ociRunRun is `duplex oci run`: the container's program has this process's
// streams and signals, and its exit status.
func ociRunRun(ctx context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	var opts oci.CreateOptions
	o.createFlags(fs, &opts)
	detach := fs.BoolP("detach", "d", false, "return when the program has started")
	keep := fs.Bool("keep", false, "do not delete the container when it has stopped")
	if err := o.parse(fs, args, 0); err != nil {
		return err
	}
	if err := o.createOptions(fs, &opts); err != nil {
		return err
	}
	run := oci.RunOptions{CreateOptions: opts, Detach: *detach, Keep: *keep}
	if !*detach && opts.ConsoleSocket == "" {
		console := newOCIConsole(o)
		defer console.close()
		run.Terminal = console.attach
	}
	if !*detach {
		run.Signals = o.signals
	}
	status, err := oci.Run(ctx, run)
	if err != nil {
		return o.fail(err)
	}
	return cmdline.Status(status)
}
