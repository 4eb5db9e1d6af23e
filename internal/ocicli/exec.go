package ocicli

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/oci"
)

// ociExecFlags are runc's.
type ociExecFlags struct {
	oci.ExecOptions
	process, cwd, user, apparmor, label string
	env, caps                           []string
	gids                                []int64
	tty, noNewPrivs                     bool
}

func (f *ociExecFlags) register(fs *pflag.FlagSet) {
	fs.StringVarP(&f.process, "process", "p", "", "read the process from `FILE`, a process.json, and not from the flags")
	fs.StringVar(&f.cwd, "cwd", "", "working `DIR` in the container")
	fs.StringArrayVarP(&f.env, "env", "e", nil, "set `KEY=VALUE`")
	fs.BoolVarP(&f.tty, "tty", "t", false, "give the program a terminal")
	fs.StringVarP(&f.user, "user", "u", "", "run as `UID[:GID]`")
	fs.Int64SliceVarP(&f.gids, "additional-gids", "g", nil, "additional group ids")
	fs.StringVar(&f.ConsoleSocket, "console-socket", "", "send the terminal to the Unix socket `PATH`")
	fs.BoolVarP(&f.Detach, "detach", "d", false, "return when the program has started")
	fs.StringVar(&f.PidFile, "pid-file", "", "write the process's id to `FILE`")
	fs.StringVar(&f.label, "process-label", "", "refused: SELinux labels are not set")
	fs.StringVar(&f.apparmor, "apparmor", "", "set the AppArmor `PROFILE`")
	fs.BoolVar(&f.noNewPrivs, "no-new-privs", false, "set no_new_privs")
	fs.StringArrayVarP(&f.caps, "cap", "c", nil, "add a `CAPABILITY`")
	fs.IntVar(&f.PreserveFDs, "preserve-fds", 0, "hand `N` descriptors from 3 on to the program")
	fs.StringArrayVar(&f.Cgroups, "cgroup", nil, "run in a cgroup below the container's: `[CONTROLLER:]PATH`")
	fs.BoolVar(&f.IgnorePaused, "ignore-paused", false, "start it in a paused container: it waits for resume")
}

func ociExec(ctx context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	var f ociExecFlags
	f.register(fs)
	if err := o.parse(fs, args, 1<<30); err != nil {
		return err
	}
	switch {
	case f.label != "":
		return o.usage("--process-label is not supported: duplex does not set SELinux labels")
	case f.process == "" && fs.NArg() < 2:
		return o.usage("no program given")
	case f.PreserveFDs < 0 || f.PreserveFDs > 1<<16:
		return o.usage("--preserve-fds=%d: out of range", f.PreserveFDs)
	}
	c, err := o.open(fs, false)
	if err != nil {
		return err
	}
	if f.Process, err = f.makeProcess(c, fs); err != nil {
		return o.fail(err)
	}
	f.Warn = o.warnLog
	if !f.Detach && f.ConsoleSocket == "" {
		console := newOCIConsole(o)
		defer console.close()
		f.Terminal = console.attach
	}
	if !f.Detach {
		f.Signals = o.signals
	}
	status, err := c.Exec(ctx, f.ExecOptions)
	if err != nil {
		return o.fail(err)
	}
	return cmdline.Status(status)
}

// makeProcess is the file's, or the container's own with what the flags say.
func (f *ociExecFlags) makeProcess(c *oci.Container, fs *pflag.FlagSet) (*specs.Process, error) {
	if f.process != "" {
		data, err := os.ReadFile(f.process)
		if err != nil {
			return nil, err
		}
		p := &specs.Process{}
		if err := json.Unmarshal(data, p); err != nil {
			return nil, fmt.Errorf("parse %s: %w", f.process, err)
		}
		return p, nil
	}
	p := c.ExecProcess(fs.Args()[1:])
	p.Terminal = f.tty
	p.Env = append(p.Env, f.env...)
	if f.cwd != "" {
		p.Cwd = f.cwd
	}
	if f.apparmor != "" {
		p.ApparmorProfile = f.apparmor
	}
	if f.noNewPrivs {
		p.NoNewPrivileges = true
	}
	for _, name := range f.caps {
		if err := oci.AddCapability(p, name); err != nil {
			return nil, fmt.Errorf("--cap: %w", err)
		}
	}
	for _, g := range f.gids {
		if g < 0 || g > 1<<32-2 {
			return nil, fmt.Errorf("--additional-gids %d: out of range", g)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(g))
	}
	if f.user == "" {
		return p, nil
	}
	return p, setUser(p, f.user)
}

// setUser sets the ids of UID[:GID].
func setUser(p *specs.Process, user string) error {
	text, gid, hasGID := strings.Cut(user, ":")
	if !hasGID {
		gid = strconv.FormatUint(uint64(p.User.GID), 10)
	}
	for _, id := range []struct {
		text string
		to   *uint32
	}{{text, &p.User.UID}, {gid, &p.User.GID}} {
		n, err := strconv.ParseUint(id.text, 10, 32)
		if err != nil || n == math.MaxUint32 { // to setresuid(2) "the one it has"
			return fmt.Errorf("--user %s: want UID[:GID], as numbers", user)
		}
		*id.to = uint32(n)
	}
	return nil
}

func ociPause(_ context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	return o.locked(fs, args, (*oci.Container).Pause)
}

func ociResume(_ context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	return o.locked(fs, args, (*oci.Container).Resume)
}

// locked does one thing to the container that the arguments name.
func (o *ociApp) locked(fs *pflag.FlagSet, args []string, do func(*oci.Container) error) error {
	if err := o.parse(fs, args, 0); err != nil {
		return err
	}
	c, err := o.open(fs, true)
	if err != nil {
		return err
	}
	defer c.Close()
	return o.fail(do(c))
}

func ociFeatures(_ context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	if err := o.parse(fs, args, -1); err != nil {
		return err
	}
	return cmdline.PrintJSON(o.out, oci.Features())
}

func ociSpec(_ context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	bundle := fs.StringP("bundle", "b", ".", "write to config.json in `DIR`")
	rootless := fs.Lookup("rootless")
	rootless.NoOptDefVal, rootless.Usage = "true", "write one for a user without root"
	if err := o.parse(fs, args, -1); err != nil {
		return err
	}
	file := *bundle + "/config.json"
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if os.IsExist(err) {
		return &workload.Error{Op: o.cmd.name, Err: err, Remedy: "Remove the file first: it is not overwritten."}
	}
	if err != nil {
		return o.fail(err)
	}
	defer func() { _ = f.Close() }()
	example := oci.Example()
	if o.rootless == "true" {
		example = oci.ExampleWithoutRoot(os.Geteuid(), os.Getegid())
	}
	return o.fail(cmdline.PrintJSON(f, example))
}
