package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/microvm"
	"github.com/duplex-run/duplex/vmm"
)

var bootCommand = command{
	name:    "boot",
	summary: "Boot a kernel, initrd and disks of your own in a microVM",
	run:     runBoot,
}

// bootOptions are the flags of `duplex boot`, and the keys of its --config file.
type bootOptions struct {
	config          string
	kernel, initrd  string
	cmdline         string
	disks, nets     []string
	publish, shares []string
	vsock           string
	memory          string
	cpus            float64
	serial, console string
	balloon         bool
	trace           string
	stats, timeout  time.Duration
	noJail          bool
	lab             string
}

func (o *bootOptions) register(fs *pflag.FlagSet) {
	fs.StringVar(&o.config, "config", "", "read flags from the JSON `FILE`: {\"kernel\": \"bzImage\", \"disk\": [\"root.img,ro\"]}")
	fs.StringVar(&o.kernel, "kernel", "", "kernel: a bzImage or vmlinux `FILE`, or a name of 'duplex kernel ls'")
	fs.StringVar(&o.initrd, "initrd", "", "initial RAM disk `FILE`")
	fs.StringVar(&o.cmdline, "cmdline", "", "kernel command `LINE`, after what the machine needs ("+vmm.MachineCmdline+")")
	fs.StringArrayVar(&o.disks, "disk", nil, "virtio disk `FILE[,OPTION...]`: ro, direct, queues=N, bps=SIZE, iops=N, serial=NAME")
	fs.StringArrayVar(&o.nets, "net", nil, "network interface `KIND[,OPTION...]`: tap=NAME or user; mac=ADDRESS, bps=SIZE, pps=N")
	fs.StringArrayVarP(&o.publish, "publish", "p", nil, "lead `[IP:]PORT:GUESTPORT[/udp]` of the host to the guest, with --net user")
	fs.StringVar(&o.vsock, "vsock", "", "Unix socket `PATH` that connects to the guest's vsock ports: CONNECT PORT")
	fs.StringArrayVar(&o.shares, "share", nil, "share `DIR:TAG[:ro]` by virtio-fs: mount -t virtiofs TAG")
	fs.StringVarP(&o.memory, "memory", "m", "512m", "memory: `SIZE`")
	fs.Float64VarP(&o.cpus, "cpus", "c", 1, "number of `CPUS`; a fraction limits their time")
	fs.StringVar(&o.serial, "serial", "stdio", "connect the serial port to `WHERE`: stdio, none or a file")
	fs.StringVar(&o.console, "console", "none", "connect the virtio console hvc0 to `WHERE`: stdio, none or a file")
	fs.BoolVar(&o.balloon, "balloon", true, "add a balloon: memory the guest frees returns to the host")
	fs.StringVar(&o.trace, "trace", "", "write every exit of the guest to `FILE`; see 'duplex trace'")
	fs.DurationVar(&o.stats, "stats", 0, "print what the guest costs every `DURATION`")
	fs.DurationVar(&o.timeout, "timeout", 0, "end the guest after `DURATION`, status 124")
	fs.BoolVar(&o.noJail, "no-jail", false, "leave the monitor unconfined: a guest that takes it over has all your rights")
	fs.StringVar(&o.lab, "lab", "auto", "boot in the lab machine: `WHEN` is auto, always or never")
}

func runBoot(ctx context.Context, a *app, args []string) error {
	var o bootOptions
	fs := a.Flags()
	o.register(fs)
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return a.Usage("%q is not a flag", fs.Arg(0))
	}
	if o.config != "" {
		if err := readConfig(fs, o.config); err != nil {
			return &workload.Error{Op: "--config " + o.config, Err: err}
		}
	}
	h, err := o.hardware(a)
	if err != nil {
		return err
	}
	a.App.Sweep()
	if err := o.findKernel(ctx, a, h); err != nil {
		return err
	}
	if a.LabFor(o.lab, true) != "" {
		return a.bootInLab(ctx, fs, &o, h)
	}
	return o.boot(ctx, a, *h)
}

// hardware makes the machine of the flags.
func (o *bootOptions) hardware(a *app) (*microvm.Hardware, error) {
	memory, err := units.RAMInBytes(o.memory)
	switch {
	case err != nil || memory < 1<<20:
		return nil, a.Usage("--memory=%s: not a size of at least 1m", o.memory)
	case o.kernel == "":
		return nil, a.Usage("no --kernel given")
	case o.cpus <= 0 || o.cpus > vmm.MaxCPUs:
		return nil, a.Usage("--cpus=%v: out of range, at most %d", o.cpus, vmm.MaxCPUs)
	case o.serial == "stdio" && o.console == "stdio":
		return nil, a.Usage("--serial and --console cannot both have the terminal: give --serial a file or none")
	case o.lab != "auto" && o.lab != "always" && o.lab != "never":
		return nil, a.Usage("--lab=%s: want auto, always or never", o.lab)
	case o.timeout < 0 || o.stats < 0:
		return nil, a.Usage("--timeout and --stats take positive durations")
	}
	h := &microvm.Hardware{
		Kernel: o.kernel, Initrd: o.initrd, Memory: uint64(memory) &^ 4095, CPUs: o.cpus,
		Vsock: o.vsock, Console: o.console != "none", Balloon: o.balloon,
	}
	for _, s := range o.disks {
		d, err := parseDisk(s)
		if err != nil {
			return nil, a.Usage("--disk=%s: %v", s, err)
		}
		h.Disks = append(h.Disks, d)
	}
	for _, s := range o.nets {
		n, err := parseNet(s)
		if err != nil {
			return nil, a.Usage("--net=%s: %v", s, err)
		}
		h.Networks = append(h.Networks, n)
	}
	if len(o.publish) > 0 {
		user := firstUser(h.Networks)
		if user == nil {
			return nil, a.Usage("--publish needs --net user")
		}
		user.Publish = o.publish
	}
	for _, s := range o.shares {
		sh, err := parseShare(s)
		if err != nil {
			return nil, a.Usage("--share=%s: %v", s, err)
		}
		h.Shares = append(h.Shares, sh)
	}
	h.Cmdline = o.commandLine(h)
	return h, nil
}

func firstUser(list []microvm.Network) *microvm.Network {
	for i := range list {
		if list[i].Tap == "" {
			return &list[i]
		}
	}
	return nil
}

// commandLine is the kernel's command line: what the machine needs, and what was
// given or a default that boots the first disk when there is no initrd.
func (o *bootOptions) commandLine(h *microvm.Hardware) string {
	line := vmm.MachineCmdline
	if o.cmdline != "" {
		return line + " " + o.cmdline
	}
	if o.serial != "none" {
		line += " console=ttyS0"
	}
	if h.Console {
		line += " console=hvc0"
	}
	line += " panic=-1"
	if h.Initrd == "" && len(h.Disks) > 0 {
		line += " root=/dev/vda "
		line += map[bool]string{true: "ro", false: "rw"}[h.Disks[0].ReadOnly]
	}
	return line
}

// findKernel takes a name of the store for the file it stands for.
func (o *bootOptions) findKernel(ctx context.Context, a *app, h *microvm.Hardware) error {
	if strings.Contains(o.kernel, "/") {
		return nil
	}
	if _, err := os.Stat(o.kernel); err == nil {
		return nil
	}
	k, err := a.kernel(ctx, o.kernel)
	if err != nil {
		return err
	}
	h.Kernel, err = k.Vmlinux(ctx)
	return err
}

// boot boots h here, connected as the flags say.
func (o *bootOptions) boot(ctx context.Context, a *app, h microvm.Hardware) error {
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.timeout, errTimeout)
		defer cancel()
	}
	ctx, shutdown, stop := a.shutdownSignals(ctx)
	defer stop()
	b := microvm.BootOptions{Trace: o.trace, Shutdown: shutdown, NoJail: o.noJail, Warn: a.Warn}
	ctx, quit := context.WithCancelCause(ctx)
	defer quit(nil)
	closeStreams, err := o.connect(a, &b, func() { quit(errQuit) })
	if err != nil {
		return err
	}
	defer closeStreams()
	if o.stats > 0 {
		show := a.liveStats()
		defer show.done()
		b.OnStats, b.StatsEvery = show.print, o.stats
	}
	exit, _, err := microvm.Boot(ctx, h, b)
	closeStreams()
	if err != nil {
		return err
	}
	return o.status(ctx, a, exit)
}

// Why a machine was ended from outside, other than by a signal.
var (
	errTimeout = errors.New("timed out")
	errQuit    = errors.New("ended by Ctrl-A X")
)

// status is the exit status for how a guest ended.
func (o *bootOptions) status(ctx context.Context, a *app, exit vmm.Exit) error {
	switch exit.Reason {
	case vmm.PowerOff, vmm.Reset: // a reboot ends the machine, as in Firecracker
		return nil
	case vmm.Canceled:
		switch cause := context.Cause(ctx); {
		case errors.Is(cause, errQuit):
			return nil
		case errors.Is(cause, errTimeout):
			_, _ = fmt.Fprintf(a.Err, "duplex: timed out after %v\n", o.timeout)
			return cmdline.Status(workload.StatusTimeout)
		}
		return context.Canceled
	case vmm.TripleFault:
		_, _ = fmt.Fprintf(a.Err, "duplex: the guest crashed: %v\n", exit)
		return cmdline.Status(1)
	}
	return &workload.Error{Op: "run the guest", Err: errors.New(exit.String())}
}

// shutdownSignals makes the first SIGINT, SIGTERM or SIGHUP press the guest's
// power button, and the second, or the grace period's end, cancel the context.
func (a *app) shutdownSignals(parent context.Context) (context.Context, <-chan struct{}, func()) {
	ctx, cancel := context.WithCancel(parent)
	in := make(chan os.Signal, 2)
	signal.Notify(in, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	a.StopSignals()
	shutdown := make(chan struct{})
	go func() {
		defer signal.Stop(in)
		select {
		case s := <-in:
			sig, _ := s.(syscall.Signal)
			a.Signal.Store(int32(sig))
			close(shutdown)
			_, _ = fmt.Fprintf(a.Err, "duplex: asked the guest to power off; once more ends it at once\n")
		case <-ctx.Done():
			return
		}
		grace := time.NewTimer(shutdownGrace)
		defer grace.Stop()
		select {
		case <-in:
		case <-grace.C:
		case <-ctx.Done():
		}
		cancel()
	}()
	return ctx, shutdown, cancel
}

// shutdownGrace is how long a guest may take to power off when it is asked to.
const shutdownGrace = 10 * time.Second

// connect opens the streams of the serial port and the console. quit ends the
// machine: the user typed the escape.
func (o *bootOptions) connect(a *app, b *microvm.BootOptions, quit func()) (func(), error) {
	var undo []func()
	closeAll := func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
		undo = nil
	}
	open := func(where string) (io.Writer, io.Reader, error) {
		switch where {
		case "none":
			return nil, nil, nil
		case "stdio":
			in, restore, err := a.rawInput(quit)
			if err == nil {
				undo = append(undo, restore)
			}
			return a.Out, in, err
		}
		f, err := os.OpenFile(where, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
		if err != nil {
			return nil, nil, &workload.Error{Op: "open the console's file", Err: err}
		}
		undo = append(undo, func() { _ = f.Close() })
		return f, nil, nil
	}
	var err error
	if b.Serial, b.SerialInput, err = open(o.serial); err == nil {
		b.Console, b.ConsoleInput, err = open(o.console)
	}
	if err != nil {
		closeAll()
		return nil, err
	}
	return closeAll, nil
}

// rawInput is stdin for a guest's console: a terminal is made raw, and Ctrl-A X
// ends the machine there.
func (a *app) rawInput(quit func()) (io.Reader, func(), error) {
	fd := int(a.In.Fd())
	if !term.IsTerminal(fd) {
		return a.In, func() {}, nil
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, nil, &workload.Error{Op: "set the terminal to raw mode", Err: err}
	}
	_, _ = fmt.Fprint(a.Err, "duplex: Ctrl-A X ends the machine\r\n")
	return &escape{in: a.In, quit: quit}, func() { _ = term.Restore(fd, old) }, nil
}
