package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/lab"
	"github.com/duplex-run/duplex/vmm/probe"
)

// LabFor decides whether a command runs in the lab, and returns why, or nothing
// when it does not: mode is --lab, wanted says whether the command needs a KVM
// that boots a stock kernel. What it found out it says in one line on stderr.
func (a *app) LabFor(mode string, wanted bool) (why string) {
	switch {
	case mode == "never", mode == "auto" && (!wanted || os.Getenv(lab.InLab) != ""):
		return ""
	case mode == "always":
		return "--lab=always asks for it"
	}
	if a.probed != nil {
		return *a.probed
	}
	report, err := probe.Run()
	if err == nil && !report.BootsStockKernel { // what is wrong, the run itself will say
		why = report.Why
		_, _ = fmt.Fprintf(a.Err, "duplex: running in the lab machine: %s\n", why)
	}
	a.probed = &why
	return why
}

// labJob is a command line that is to be run again inside the lab.
type labJob struct {
	fs    *pflag.FlagSet
	args  []string // as given, flags first
	image string   // the image to run; the command line may leave it to a default
	opts  *runcli.Options
	// extra are further arguments put before those given.
	extra []string
	// last are flags put after those given, which they override.
	last []string
	// output are files that the command writes; "" is none.
	output []string
	// carry are further files the command names.
	carry []string
	// memory is what the lab machine needs beyond what one run of the image does.
	memory int64
	// deterministic is lab.Options.Deterministic.
	deterministic bool
}

// labMemory is the least memory of the lab machine; a workload that asks for
// more gets that and half of this for the machine itself.
const labMemory = 2 << 30

// runInLab prepares everything on the host, where there is a network and a
// cache, and runs the same command line on the same files in the lab.
func (a *app) runInLab(ctx context.Context, j labJob) error {
	memory, err := j.opts.MemoryBytes(a.App)
	if err != nil {
		return err
	}
	img, err := a.Image(ctx, j.image, false)
	if err != nil {
		return err
	}
	defer func() { _ = img.Close() }()
	g, err := a.guest(ctx, j.opts)
	if err != nil {
		return err
	}
	exe, cwd, err := here()
	if err != nil {
		return err
	}
	cache, err := hostdir.Cache()
	if err != nil {
		return err
	}
	volumes, err := j.opts.HostVolumes()
	if err != nil {
		return err
	}
	carry := slices.Concat(j.opts.EnvFiles, j.carry)
	for _, v := range volumes {
		carry = append(carry, v.Host)
	}
	stored, err := filepath.Glob(filepath.Join(filepath.Dir(img.EROFS), "*"))
	if err != nil {
		return err
	}
	return a.inLab(ctx, lab.Options{
		Argv:      j.argv(exe, img.Digest, g),
		Env:       append(j.env(), "DUPLEX_CACHE="+cache),
		Cwd:       cwd,
		Carry:     slices.Concat([]string{g.kernel, g.initrd}, stored, carry),
		CarryOnly: true,
		Output:    slices.DeleteFunc(j.output, func(s string) bool { return s == "" }),
		Memory:    max(labMemory, memory+labMemory/2) + j.memory,
		TTY:       j.opts.TTY, Interactive: j.opts.Interactive, Deterministic: j.deterministic,
	}, new(workload.Recorder))
}

// here is this program and the directory it works in, for the lab to have too.
func here() (exe, cwd string, err error) {
	if exe, err = os.Executable(); err != nil {
		return "", "", fmt.Errorf("find the duplex binary: %w", err)
	}
	if cwd, err = os.Getwd(); err != nil {
		return "", "", fmt.Errorf("find the working directory: %w", err)
	}
	return exe, cwd, nil
}

// argv is the command line inside the lab: the caller's flags, overridden by
// what was settled on the host, the image by its digest, and the command.
func (j labJob) argv(exe, digest string, g guest) []string {
	flags := j.args[:len(j.args)-j.fs.NArg()]
	if n := len(flags); n > 0 && flags[n-1] == "--" {
		flags = flags[:n-1]
	}
	var cmd []string
	if j.fs.NArg() > 1 {
		cmd = j.fs.Args()[1:]
	}
	return slices.Concat([]string{exe}, strings.Fields(j.fs.Name()), j.extra, flags,
		j.last, []string{"--lab=never", "--kernel=" + g.kernel, "--initrd=" + g.initrd, digest}, cmd)
}

// env hands over the caller's variables that -e and --env-file may ask for.
func (j labJob) env() []string {
	var names []string
	for _, e := range j.opts.Env {
		if !strings.Contains(e, "=") {
			names = append(names, e)
		}
	}
	if len(j.opts.EnvFiles) > 0 {
		for _, v := range os.Environ() {
			name, _, _ := strings.Cut(v, "=")
			names = append(names, name)
		}
	}
	names = append(names, "NO_COLOR", "TERM")
	return runcli.FromCaller(slices.DeleteFunc(names, func(n string) bool { return n == "PATH" || n == "HOME" }))
}
