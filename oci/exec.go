package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/cgroup"
	"github.com/duplex-run/duplex/container/handshake"
)

// ExecOptions are what Exec is given.
type ExecOptions struct {
	Process       *specs.Process
	PidFile       string
	ConsoleSocket string
	Terminal      func(*os.File) // as of CreateOptions
	PreserveFDs   int
	Detach        bool
	IgnorePaused  bool
	Cgroups       []string    // below the container's; see cgroups.Set.Sub
	Stdio         [3]*os.File // as of CreateOptions
	Signals       Signals
	Warn          func(string)
}

// Exec runs another program in a running container and returns its exit status.
func (c *Container) Exec(ctx context.Context, o ExecOptions) (int, error) {
	switch s := c.Status(); {
	case s == specs.StateStopped:
		return 0, errors.New("cannot exec in a stopped container")
	case s == statePaused && !o.IgnorePaused:
		return 0, errors.New("cannot exec in a paused container (use --ignore-paused to override)")
	case s == specs.StateCreating:
		return 0, errors.New("cannot exec in a container that is being created")
	}
	if err := CheckProcess(o.Process); err != nil {
		return 0, err
	}
	create := CreateOptions{ConsoleSocket: o.ConsoleSocket, Terminal: o.Terminal, Warn: o.Warn}
	if err := checkTerminal(&specs.Spec{Process: o.Process}, create); err != nil {
		return 0, err
	}
	signals := o.Signals.take()
	ch, first, err := c.beginExec(create, o)
	if err != nil {
		return 0, err
	}
	defer ch.close()
	stop := context.AfterFunc(ctx, ch.kill)
	defer stop()
	if err := c.followExec(create, o, first, ch); err != nil {
		ch.kill()
		_, _ = ch.process.Wait()
		return 0, err
	}
	if o.PidFile != "" {
		if err := writePidFile(o.PidFile, ch.pid); err != nil {
			ch.kill()
			return 0, err
		}
	}
	if o.Detach {
		return 0, nil
	}
	stop()
	return waitFor(ch.pid, signals)
}

// beginExec starts the process of exec and returns what it is to be told.
func (c *Container) beginExec(create CreateOptions, o ExecOptions) (*child, handshake.Message, error) {
	if c.VM != nil {
		if len(o.Cgroups) > 0 {
			return nil, handshake.Message{}, notInVM("exec --cgroup", "the container's cgroups are its guest's")
		}
		m, err := c.execMessage(o)
		if err != nil {
			return nil, m, err
		}
		ch, err := c.startGuestExec(o)
		return ch, m, err
	}
	m := handshake.Message{Kind: handshake.KindPlan}
	p, err := c.execPlan(o)
	if err != nil {
		return nil, m, err
	}
	grantable(p.Process, create.warn)
	if err := groupsWithoutRoot(c.Spec, p.Process); err != nil {
		return nil, m, err
	}
	m.Plan = p
	ch, err := c.startExec(o, p)
	return ch, m, err
}

func (c *Container) followExec(create CreateOptions, o ExecOptions, first handshake.Message, ch *child) error {
	if a := o.Process.OOMScoreAdj; a != nil {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", ch.pid), fmt.Append(nil, *a), 0); err != nil {
			return &handshake.StepError{Step: "set process.oomScoreAdj", Err: err}
		}
	}
	if err := ch.conn.Send(first); err != nil {
		return ch.blame(err)
	}
	err := ch.await(callbacks{
		terminal: create.passTerminal,
		notify:   func(f *os.File) error { return c.passListener(f, ch.pid) },
		hooks:    func() error { return errors.New("hooks are not for exec") },
	})
	if err != nil {
		return err
	}
	m, err := ch.conn.Receive() // until execve closes it
	switch {
	case err == nil:
		return failure(m)
	case !errors.Is(err, io.EOF):
		return ch.blame(err)
	}
	return nil
}

// execPlan is the container's own, but for what exec is told.
func (c *Container) execPlan(o ExecOptions) (*handshake.Plan, error) {
	process, err := processPlan(o.Process, o.PreserveFDs)
	if err != nil {
		return nil, err
	}
	p := &handshake.Plan{Process: process, Keyring: handshake.NoKeyring}
	if process.Personality, err = personality(c.Spec.Linux.Personality); err != nil {
		return nil, err
	}
	if process.MemoryPolicy, err = memoryPolicy(c.Spec.Linux.MemoryPolicy); err != nil {
		return nil, err
	}
	filter, err := Seccomp(c.Spec.Linux.Seccomp)
	if err != nil {
		return nil, err
	}
	if filter != nil {
		process.Seccomp, process.SeccompFlags, process.Notify = filter.Program, filter.Flags, filter.Notify
	}
	if a := o.Process.ExecCPUAffinity; a != nil {
		if process.CPUs, err = cgroup.ParseList(a.Final); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// startExec starts a process in the container's namespaces and cgroups.
func (c *Container) startExec(o ExecOptions, p *handshake.Plan) (ch *child, err error) {
	l, conn, err := newChild(o.Process.Terminal, o.Stdio, o.PreserveFDs, false)
	if err != nil {
		return nil, err
	}
	defer l.close()
	defer func() {
		if err != nil {
			_ = conn.F.Close() // start may have done it
		}
	}()
	sys := &syscall.SysProcAttr{Setsid: true}
	enter, err := c.joinAll(l, p)
	if err != nil {
		return nil, err
	}
	set := c.Cgroups
	if len(o.Cgroups) > 0 {
		if set, err = set.Sub(o.Cgroups); err != nil {
			return nil, fmt.Errorf("--cgroup: %w", err)
		}
	}
	if err := joinCgroups(set, l, sys, p); err != nil {
		return nil, err
	}
	if a := o.Process.ExecCPUAffinity; a != nil {
		enter = allOf([]func() error{enter, func() error { return setAffinity(a.Initial) }})
	}
	return l.start(o.PreserveFDs, sys, conn, enter)
}

// setAffinity puts this thread, and so the process that it starts, on the CPUs of
// list, until that is in the container's cgroup (config.md, "execCPUAffinity").
func setAffinity(list string) error {
	cpus, err := cgroup.ParseList(list)
	if err != nil || len(cpus) == 0 {
		return err
	}
	var set unix.CPUSet
	for _, n := range cpus {
		set.Set(n)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("set the CPU affinity to %s: %w", list, err)
	}
	return nil
}

// joinAll opens the namespaces that the container has, of its first process.
func (c *Container) joinAll(l *layout, p *handshake.Plan) (func() error, error) {
	pidfd, err := c.pidfd()
	if err != nil {
		return nil, errNotRunning
	}
	defer func() { _ = unix.Close(pidfd) }()
	var before []func() error
	for _, t := range namespaceTypes {
		if !hasNamespace(c.Spec, t.kind) {
			if t.kind == specs.MountNamespace {
				return nil, unsupported("exec in a container without a mount namespace", "its root is of its first process only")
			}
			continue
		}
		f, err := openNamespace(t.kind, fmt.Sprintf("/proc/%d/ns/%s", c.Pid, t.file))
		if err != nil {
			return nil, err
		}
		if f := l.join(f, t.flag, p); f != nil {
			before = append(before, f)
		}
	}
	// Had the process ended, and its number been given out again, meanwhile, the
	// signal would not arrive.
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		return nil, errNotRunning
	}
	return allOf(before), nil
}

// ExecProcess is the process of exec: the container's own with the arguments
// args.
func (c *Container) ExecProcess(args []string) *specs.Process {
	p := specs.Process{Cwd: "/"}
	if c.Spec.Process != nil {
		p = *c.Spec.Process
	}
	p.Args, p.Env, p.Terminal = args, slices.Clone(p.Env), false
	p.ConsoleSize = nil
	return &p
}

// AddCapability gives the process of exec one more capability.
func AddCapability(p *specs.Process, name string) error {
	if !slices.Contains(capabilities, name) {
		return fmt.Errorf("capability %q is not known", name)
	}
	c := &specs.LinuxCapabilities{}
	if p.Capabilities != nil {
		*c = *p.Capabilities
	}
	for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
		*set = append(slices.Clone(*set), name)
	}
	p.Capabilities = c
	return nil
}

// InVM says whether the container is a microVM.
func (c *Container) InVM() bool { return c.VM != nil }

// GuestProcesses lists the processes of a container in a microVM, as its guest
// numbers them.
func (c *Container) GuestProcesses() ([]GuestProcess, error) {
	switch c.Status() {
	case specs.StateStopped:
		return nil, errNotRunning
	case statePaused:
		return nil, errors.New("the container is paused, and its guest cannot say")
	}
	a, err := c.askMachine(word{Op: opPS})
	return a.Procs, err
}

// Pids lists the processes of the container, as the host numbers them.
func (c *Container) Pids() ([]int, error) {
	if c.Cgroups == nil || len(c.Cgroups.Dirs) == 0 {
		return nil, errors.New("ps needs a cgroup, and the container has none")
	}
	return c.Cgroups.Procs()
}

// Pause stops every process of the container; Resume lets them go on.
func (c *Container) Pause() error {
	if s := c.Status(); s != specs.StateRunning && s != specs.StateCreated {
		return fmt.Errorf("container not running or created: %s", s)
	}
	if c.VM != nil {
		return c.pauseMachine(true)
	}
	return c.Cgroups.Freeze(true)
}

// Resume is the end of Pause.
func (c *Container) Resume() error {
	if s := c.Status(); s != statePaused {
		return fmt.Errorf("container not paused: %s", s)
	}
	if c.VM != nil {
		return c.pauseMachine(false)
	}
	return c.Cgroups.Freeze(false)
}

// Update changes the limits of the container to res; what it does not name
// stays.
func (c *Container) Update(res *specs.LinuxResources) error {
	if c.Status() == specs.StateStopped {
		return errNotRunning
	}
	if c.VM != nil {
		return notInVM("update", "a machine keeps the memory and the vCPUs it was made with")
	}
	if len(res.Rdma) > 0 {
		return unsupported("rdma", "duplex does not manage RDMA")
	}
	if c.Cgroups == nil || len(c.Cgroups.Dirs) == 0 {
		return errors.New("update needs a cgroup, and the container has none")
	}
	// Kubernetes sends the whole of the limits, with the rules there were.
	if len(res.Devices) > 0 && !reflect.DeepEqual(res.Devices, deviceRules(c.Spec.Linux.Resources)) {
		return unsupported("update of devices", "the rules are set when the container is made")
	}
	return c.Cgroups.Apply(res)
}
