package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/console"
	"github.com/duplex-run/duplex/internal/workload"
)

// Options says what to run in the lab and on what machine.
type Options struct {
	// Argv is the command.
	Argv []string
	// Env is the command's environment beyond PATH, HOME and TERM.
	Env []string
	// Cwd is the working directory, absolute; it is made in the lab.
	Cwd string
	// Carry lists files and directories to carry in, beyond those Argv names.
	Carry []string
	// Output lists files that the command may make, which come back beside what
	// changes of what was carried.
	Output []string
	// CarryOnly says that Argv's arguments name nothing on the host: only the
	// command itself and Carry are carried.
	CarryOnly bool
	// Kernel is what kernel.Find takes; empty means the newest.
	Kernel string
	// Deterministic counts instructions instead of time, on one CPU.
	Deterministic bool
	// Memory of the machine in bytes, at least 256 MiB; 0 means 2 GiB.
	Memory int64
	// CPUs of the machine; 0 means 1, which is the quickest and the safest.
	CPUs int
	// Timeout ends the command with status 124; it counts from the start of the
	// machine. 0 means never.
	Timeout time.Duration
	// BootTimeout bounds the time until the machine's agent comes up, after
	// which the run fails; 0 means DefaultBootTimeout.
	BootTimeout time.Duration
	// TTY gives the command a terminal of Size; Interactive keeps stdin open.
	TTY, Interactive bool
	Size             workload.WinSize
	// Console gets the machine's kernel log; may be nil.
	Console io.Writer
}

// DefaultBootTimeout is long: a busy host makes a start of three seconds take a
// minute.
const DefaultBootTimeout = 5 * time.Minute

const (
	// minMemory holds the machine's kernel, initramfs and agent.
	minMemory     = 256 << 20
	defaultMemory = 2 << 30
	defaultCPUs   = 1
)

// Run runs one command in a lab of its own and returns how it ended. An error
// is the lab's own failure. Cancelling ctx ends the machine. When Run returns,
// nothing is left of it. rec gets PhaseExec at the start, PhaseImage when what the
// machine needs is ready, PhaseEntered when QEMU was started, the Session's
// phases and PhaseTornDown; it may be nil.
func Run(ctx context.Context, o Options, stdio workload.Stdio, rec *workload.Recorder) (workload.Exit, error) {
	rec.Stamp(workload.PhaseExec)
	defer rec.Stamp(workload.PhaseTornDown)
	if err := o.validate(); err != nil {
		return workload.Exit{}, err
	}
	j, err := prepare(ctx, o)
	if err != nil {
		return workload.Exit{}, err
	}
	defer func() { _ = j.root.Close() }()
	rec.Stamp(workload.PhaseImage)
	m, err := start(j.config)
	rec.Stamp(workload.PhaseEntered)
	if err != nil {
		return workload.Exit{}, err
	}
	defer m.stop()
	log := &console.Tail{Also: o.Console}
	read := make(chan struct{})
	go func() {
		_, _ = io.Copy(log, m.console)
		close(read)
	}()
	var overdue atomic.Bool
	slow := time.AfterFunc(o.BootTimeout, func() { overdue.Store(true); m.kill() })
	defer slow.Stop()
	s := &agentproto.Session{
		Control:  m.streams[agentproto.Control],
		Stdin:    m.streams[agentproto.Stdin],
		Stdout:   m.streams[agentproto.Stdout],
		Stderr:   m.streams[agentproto.Stderr],
		Return:   m.streams[agentproto.Return],
		Unpack:   j.receiver.unpack,
		OnHello:  func() { slow.Stop(); rec.Stamp(workload.PhaseKernelUp) },
		Recorder: rec,
	}
	if stdio.Running != nil {
		c := &controller{mux: agentproto.NewMux(m.streams[agentproto.Further], nil), env: j.start.Spec.Env}
		defer func() { _ = c.mux.Close() }()
		s.OnStarted = func() { stdio.Running(c) }
	}
	if !o.Deterministic { // there, timers run in step with the CPU
		s.Pulse = pulse
	}
	if o.Timeout > 0 {
		s.Deadline = time.Now().Add(o.Timeout)
	}
	exit, err := s.Run(ctx, j.start, stdio)
	if overdue.Load() {
		err = fmt.Errorf("the agent did not come up within %v", o.BootTimeout)
	}
	if err != nil && ctx.Err() == nil {
		return exit, m.explain(err, log, read)
	}
	return exit, err
}

func (o *Options) validate() error {
	switch {
	case len(o.Argv) == 0:
		return errors.New("lab: no command")
	case !filepath.IsAbs(o.Cwd):
		return fmt.Errorf("lab: working directory %q is not absolute", o.Cwd)
	case o.Memory != 0 && o.Memory < minMemory:
		return &workload.Error{Op: "start the lab", Err: fmt.Errorf("%d MiB of memory is less than %d", o.Memory>>20, minMemory>>20)}
	case o.CPUs < 0 || o.CPUs > 64 || o.Timeout < 0:
		return &workload.Error{Op: "start the lab", Err: fmt.Errorf("%d CPUs, timeout %v: out of range", o.CPUs, o.Timeout)}
	}
	o.Cwd = filepath.Clean(o.Cwd)
	o.Memory = cmp.Or(o.Memory, defaultMemory)
	o.CPUs = cmp.Or(o.CPUs, defaultCPUs)
	o.BootTimeout = cmp.Or(o.BootTimeout, DefaultBootTimeout)
	return nil
}

// pulse is how often every CPU of the machine is interrupted from outside. QEMU
// 7.2 may lose an interrupt: leaving and entering a guest of the machine's KVM,
// it changes the CPU's set of pending interrupts without the lock or the atomic
// operation that its timers, on another thread, would need (svm_helper.c). A
// machine that waits for its timer would wait for ever.
const pulse = time.Second

// endGrace is how long a machine whose agent is gone may take to end itself.
const endGrace = 2 * time.Second

// explain says why the machine ended, from its console and QEMU's own words.
func (m *machine) explain(err error, log *console.Tail, read <-chan struct{}) error {
	var own *workload.Error
	if errors.As(err, &own) {
		return err
	}
	select {
	case <-m.ended:
		<-read
	case <-time.After(endGrace):
	}
	if line := console.Verdict(log.String()); line != "" {
		err = fmt.Errorf("%w (%s)", err, line)
	}
	if words := m.stderr.String(); words != "" {
		err = fmt.Errorf("%w (QEMU: %s)", err, console.Printable(words))
	}
	return &workload.Error{Op: "run the lab", Err: err,
		Remedy: "The emulated machine failed; try once more, with --verbose ('duplex lab run') to see its console."}
}
