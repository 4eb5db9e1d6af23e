package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/hook"
	"github.com/duplex-run/duplex/container/inside"
	"github.com/duplex-run/duplex/container/seccomp"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/oci/cgroups"
)

// CreateOptions are what create and run are given beside the bundle.
type CreateOptions struct {
	Root   string // of the state directories
	ID     string
	Bundle string
	// PidFile is written with the first process's id, "" for none.
	PidFile string
	// ConsoleSocket is the path of a Unix socket to send the terminal to.
	ConsoleSocket string
	// Terminal gets the master of the terminal when there is no socket.
	Terminal func(*os.File)
	// PreserveFDs is how many descriptors from 3 on the program gets.
	PreserveFDs int
	// NoNewKeyring keeps the caller's session keyring.
	NoNewKeyring bool
	// Isolation is what the container is: a container, or a microVM; empty leaves it
	// to the bundle's annotation.
	Isolation workload.Isolation
	// Guest finds what a microVM boots.
	Guest func(context.Context) (Guest, error)
	// Stdio are the program's standard streams without a terminal; nil ones are
	// the caller's own.
	Stdio [3]*os.File
	// Warn is told what does not stop the container.
	Warn func(string)
}

// Create makes a container of a bundle, as far as the moment before its program
// is executed (runtime.md, "Create"). Whatever fails leaves nothing behind.
func Create(ctx context.Context, o CreateOptions) (*Container, error) {
	bundle, err := filepath.Abs(o.Bundle)
	if err != nil {
		return nil, err
	}
	spec, text, err := Load(bundle)
	if err != nil {
		return nil, err
	}
	if err := checkTerminal(spec, o); err != nil {
		return nil, err
	}
	p, err := plan(spec, o.ID, bundle)
	if err != nil {
		return nil, err
	}
	vm, err := o.machine(ctx, spec, bundle)
	if err != nil {
		return nil, err
	}
	if o.NoNewKeyring {
		p.Keyring = handshake.NoKeyring
	}
	for _, w := range warnings(spec) {
		o.warn(w)
	}
	if vm == nil {
		grantable(p.Process, o.warn)
		if err := groupsWithoutRoot(spec, p.Process); err != nil {
			return nil, err
		}
	}
	c, err := reserve(ctx, o.Root, o.ID)
	if err != nil {
		return nil, err
	}
	c.Bundle, c.Created, c.Spec, c.Rootfs, c.VM = bundle, time.Now().UTC(), spec, spec.Root.Path, vm
	err = os.WriteFile(c.path(specFile), text, 0o600)
	if err == nil {
		err = c.create(ctx, o, p)
	}
	if err != nil {
		return nil, errors.Join(err, c.undo())
	}
	return c, nil
}

func checkTerminal(s *specs.Spec, o CreateOptions) error {
	terminal := s.Process != nil && s.Process.Terminal
	switch {
	case terminal && o.ConsoleSocket == "" && o.Terminal == nil:
		return errors.New("cannot allocate tty if runc will detach without setting console socket: give --console-socket")
	case !terminal && o.ConsoleSocket != "":
		return errors.New("cannot use console socket if runc will not detach or allocate tty: process.terminal is false")
	}
	return nil
}

// grantable takes capabilities that the caller does not have out of p, and says
// so (config.md, "capabilities": it must be a warning, not an error).
func grantable(p *handshake.Process, warn func(string)) {
	if p == nil {
		return
	}
	var have uint64
	for c := range capabilities {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && v == 1 {
			have |= 1 << c
		}
	}
	wanted := p.Bounding | p.Effective | p.Permitted | p.Inheritable | p.Ambient
	if missing := wanted &^ have; missing != 0 {
		warn(fmt.Sprintf("capabilities %v cannot be granted: duplex itself does not have them", seccomp.Names(missing)))
	}
	for _, set := range []*uint64{&p.Bounding, &p.Effective, &p.Permitted, &p.Inheritable, &p.Ambient} {
		*set &= have
	}
	p.Effective &= p.Permitted
	p.Ambient &= p.Permitted & p.Inheritable
}

// reserve makes and locks the state directory. What an unfinished create left
// there, which was killed, is undone first.
func reserve(ctx context.Context, root, id string) (*Container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, err
	}
	dir := filepath.Join(root, id)
	for {
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		if err := takeOver(dir, root, id); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	c := &Container{dir: dir, record: record{ID: id}}
	f, err := os.OpenFile(c.path(lockFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = flock(f, unix.LOCK_EX)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	c.lock = f
	return c, nil
}

// takeOver removes an abandoned state directory, or says that id is taken.
func takeOver(dir, root, id string) error {
	taken := fmt.Errorf("%w: %q", ErrExist, id)
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if err != nil {
		return taken // another create has just made it
	}
	defer func() { _ = lock.Close() }()
	if flock(lock, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return taken
	}
	c, err := Open(root, id, false)
	switch {
	case errors.Is(err, ErrNotExist):
		return os.RemoveAll(dir) // killed before it wrote anything
	case err != nil || c.Ready:
		return taken
	}
	return c.undo()
}

// undo removes everything of the container, living or dead.
func (c *Container) undo() error {
	c.killInit()
	errs := []error{c.Cgroups.Remove(), c.disconnect()}
	if c.Unmount != "" {
		errs = append(errs, unmount(c.Unmount))
	}
	errs = append(errs, os.RemoveAll(c.dir))
	c.Close()
	return errors.Join(errs...)
}

// killInit kills the first process, if it is still that, and waits for its end.
func (c *Container) killInit() {
	pidfd, err := c.pidfd()
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(pidfd) }()
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	// A pidfd is readable when the process has ended (pidfd_open(2)).
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 10_000)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// pidfd opens the container's first process, or says that it is gone.
func (c *Container) pidfd() (int, error) {
	if c.Pid == 0 {
		return -1, unix.ESRCH
	}
	fd, err := unix.PidfdOpen(c.Pid, 0)
	if err != nil {
		return -1, err
	}
	if !c.alive() { // looked at after it was opened: the number stands for it now
		_ = unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

func (c *Container) create(ctx context.Context, o CreateOptions, p *handshake.Plan) error {
	l := c.Spec.Linux
	var err error
	if c.Cgroups, err = cgroups.Plan(l.CgroupsPath, c.ID); err != nil {
		return err
	}
	res := l.Resources
	if c.VM != nil {
		res = c.VM.Host
	}
	if !p.Files.NewNamespace && !hasNamespace(c.Spec, specs.MountNamespace) {
		c.Unmount = c.Spec.Root.Path
	}
	if err := c.save(); err != nil { // so that a later command can undo it
		return err
	}
	if err := c.Cgroups.Make(res); err != nil {
		return err
	}
	if err := c.save(); err != nil {
		return err
	}
	if err := c.Cgroups.Apply(res); err != nil {
		return err
	}
	child, err := c.startFirst(o, p)
	if err != nil {
		return c.withoutRoot(err)
	}
	defer child.close()
	stop := context.AfterFunc(ctx, child.kill)
	defer stop()
	err = c.follow(ctx, o, p, child)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if o.PidFile != "" {
		if err := writePidFile(o.PidFile, c.Pid); err != nil {
			return err
		}
	}
	c.Ready = true
	return c.save()
}

// startFirst starts the container's first process, or the supervisor of its machine.
func (c *Container) startFirst(o CreateOptions, p *handshake.Plan) (*child, error) {
	if c.VM != nil {
		return c.startSupervisor(o)
	}
	if err := c.Cgroups.Devices(deviceRules(c.Spec.Linux.Resources)); err != nil {
		return nil, err
	}
	for _, d := range c.Cgroups.Dirs {
		if d.Name == "" {
			p.Files.V2 = d.Path
		} else {
			p.Files.V1 = append(p.Files.V1, handshake.CgroupDir{Name: d.Name, Dir: d.Path})
		}
	}
	if c.canDirect(p) {
		ch, err := c.startDirect(o, p)
		if !errors.Is(err, inside.ErrNotHere) {
			return ch, err
		}
		_ = os.Remove(c.path(startSock)) // it is made anew
	}
	return c.startInit(o, p)
}

func deviceRules(r *specs.LinuxResources) []specs.LinuxDeviceCgroup {
	if r == nil {
		return nil
	}
	return r.Devices
}

// follow takes the process from its start to where it waits for start.
func (c *Container) follow(ctx context.Context, o CreateOptions, p *handshake.Plan, child *child) error {
	var err error
	if _, c.StartTime, err = procStat(child.pid); err != nil {
		return child.blame(err)
	}
	c.Pid = child.pid
	if err := c.save(); err != nil {
		return err
	}
	if c.Spec.Process != nil && c.Spec.Process.OOMScoreAdj != nil {
		file := fmt.Sprintf("/proc/%d/oom_score_adj", c.Pid)
		if err := os.WriteFile(file, []byte(strconv.Itoa(*c.Spec.Process.OOMScoreAdj)), 0); err != nil {
			return &handshake.StepError{Step: "set process.oomScoreAdj", Err: err}
		}
	}
	if err := c.moveNetDevices(); err != nil {
		return err
	}
	if child.direct == nil {
		first := handshake.Message{Kind: handshake.KindPlan, Plan: p}
		if c.VM != nil { // its supervisor reads the state
			first = handshake.Message{Kind: handshake.KindGo}
		} else {
			p.State = c.stateJSON(specs.StateCreated)
		}
		if err := child.conn.Send(first); err != nil {
			return child.blame(err)
		}
	}
	return child.await(callbacks{
		terminal: o.passTerminal,
		notify:   func(f *os.File) error { return c.passListener(f, child.pid) },
		hooks:    func() error { return c.createHooks(ctx) },
	})
}

// failure is the error of a failed message. A program that is not there, or
// cannot be executed, has docker's statuses.
func failure(m handshake.Message) error {
	if m.Status != 0 {
		return &workload.Error{Op: m.Step, Err: errors.New(m.Error), Remedy: m.Remedy, Status: m.Status}
	}
	err := m.Failure()
	if m.Step != "find the program" && m.Step != "exec" {
		return err
	}
	out := &workload.Error{Op: "exec", Err: errors.New(m.Error), Status: workload.StatusNotExecutable}
	if errors.Is(err, unix.ENOENT) {
		out.Status = workload.StatusNotFound
	}
	return out
}

// createHooks runs the hooks of the runtime's namespaces.
func (c *Container) createHooks(ctx context.Context) error {
	h := c.Spec.Hooks
	if h == nil {
		return nil
	}
	// By then the environment is created (runtime.md, "Lifecycle", steps 2 to 5).
	state := c.stateJSON(specs.StateCreated)
	//lint:ignore SA1019 deprecated, and still in bundles
	prestart := h.Prestart
	if err := hook.All(ctx, "prestart", hookPlan(prestart), state); err != nil {
		return err
	}
	return hook.All(ctx, "createRuntime", hookPlan(h.CreateRuntime), state)
}
