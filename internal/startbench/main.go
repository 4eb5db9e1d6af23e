package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// options are the flags.
type options struct {
	duplex   string
	runs     int
	warmup   int
	parallel int
	times    int
	seed     uint64
	json     string
	only     string
	seccomp  bool
}

func main() {
	var o options
	flag.StringVar(&o.duplex, "duplex", "bin/duplex", "duplex `PROGRAM`")
	flag.IntVar(&o.runs, "n", 200, "`ROUNDS`, each with every engine once")
	flag.IntVar(&o.warmup, "warmup", 5, "`ROUNDS` before those, thrown away")
	flag.IntVar(&o.parallel, "parallel", 100, "containers at once, 0 to leave that part out")
	flag.IntVar(&o.times, "times", 9, "`ROUNDS` of those")
	flag.Uint64Var(&o.seed, "seed", 1, "`SEED` of the order")
	flag.StringVar(&o.json, "json", "", "write everything that was measured to `FILE`")
	flag.StringVar(&o.only, "only", "", "measure engines whose name has one of `WORDS`, separated by commas")
	flag.BoolVar(&o.seccomp, "seccomp", true, "with docker's seccomp profile")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "startbench:", err)
		os.Exit(1)
	}
}

// hybrid is where hosts with both kinds of cgroups have version 2.
const hybrid = "/sys/fs/cgroup/unified"

// inside says in the environment that this process has its own mounts.
const inside = "STARTBENCH_INSIDE"

func (o *options) run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("runc and crun make this bundle's container only as root: run it as root")
	}
	_, err := os.Stat(hybrid)
	both := err == nil
	if both && os.Getenv(inside) == "" {
		return again(ctx)
	}
	if both {
		if err := unix.Unmount(hybrid, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", hybrid, err)
		}
	}
	r, err := o.measure(ctx)
	if err != nil {
		return err
	}
	r.Hybrid = both
	if o.json != "" {
		data, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, data, 0o666); err != nil {
			return err
		}
	}
	return r.report(os.Stdout)
}

// again runs this program in a mount namespace of its own.
func again(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(1) // it has said why
	}
	return err
}

func (o *options) measure(ctx context.Context) (*results, error) {
	dir, err := os.MkdirTemp("", "startbench")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := writeBundle(dir, o.seccomp); err != nil {
		return nil, fmt.Errorf("write the bundle: %w", err)
	}
	duplex, err := filepath.Abs(o.duplex)
	if err != nil {
		return nil, err
	}
	list := slices.DeleteFunc(engines(duplex, dir, o.seccomp), func(e engine) bool {
		return !slices.ContainsFunc(strings.Split(o.only, ","), func(w string) bool { return strings.Contains(e.name, w) })
	})
	r := &results{Seccomp: o.seccomp, Seed: o.seed, Parallel: o.parallel, Versions: map[string]string{},
		Samples: map[string][]sample{}, Many: map[string][]time.Duration{}, Costs: map[string]cost{}}
	if err := r.describe(ctx, list); err != nil {
		return nil, err
	}
	return r, o.all(ctx, r, list)
}

// describe names the host and the engines.
func (r *results) describe(ctx context.Context, list []engine) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	r.Kernel = unix.ByteSliceToString(u.Release[:])
	for _, e := range list {
		v, err := e.versionOf(ctx)
		if err != nil {
			return err
		}
		r.Engines, r.Versions[e.name] = append(r.Engines, e.name), v
	}
	return nil
}

func (o *options) all(ctx context.Context, r *results, list []engine) error {
	n := 0
	id := func() string { n++; return fmt.Sprintf("startbench-%d-%d", os.Getpid(), n) }
	err := rounds(list, o.warmup+o.runs, o.seed, func(e engine, round int) error {
		s, err := e.once(ctx, id())
		if err == nil && round >= o.warmup {
			r.Samples[e.name] = append(r.Samples[e.name], s)
		}
		return err
	})
	if err != nil {
		return err
	}
	if o.parallel > 0 {
		err = rounds(list, o.times, o.seed, func(e engine, _ int) error {
			d, err := e.many(ctx, id(), o.parallel)
			r.Many[e.name] = append(r.Many[e.name], d)
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, e := range list {
		if r.Costs[e.name], err = e.traced(ctx, id()); err != nil {
			return err
		}
	}
	return nil
}
