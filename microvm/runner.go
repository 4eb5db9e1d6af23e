package microvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/microvm/snapshot"
	"github.com/duplex-run/duplex/vmm"
)

const (
	// DefaultMemory is the guest's memory when the Spec has no limit, in bytes.
	DefaultMemory = 512 << 20
	// MinMemory is the least a Runner accepts, in bytes. Debian's cloud kernel
	// and the agent come up with less, but leave nothing for a workload.
	MinMemory = 96 << 20
	// DefaultBootTimeout bounds the time from the start to the agent's first
	// words. It is long: an emulated host on a busy machine is slow.
	DefaultBootTimeout = 3 * time.Minute
)

// Runner runs workloads, each in a machine of its own. It holds nothing, so
// copies of it and several runs at once are fine.
type Runner struct {
	// Kernel is the path of an ELF vmlinux or a bzImage.
	Kernel string
	// Initrd is the path of the initramfs that initramfs.Build made for Kernel.
	Initrd string
	// Cmdline is appended to the kernel command line; may be empty.
	Cmdline string
	// Console gets what the guest writes to its serial port; nil discards it,
	// except that errors quote its end.
	Console io.Writer
	// BootTimeout replaces DefaultBootTimeout when it is not 0.
	BootTimeout time.Duration
	// Network is the guest's interface beside loopback; nil for none. Its MAC is
	// picked when it has none.
	Network *Network
	// Trace is a file to write every exit to; "" for none. See package trace.
	Trace string
	// Log, if set, gets the guest kernel's log in parts, in the format of /dev/kmsg,
	// once the workload has ended: with the kernel's initcalls and the agent's steps,
	// which takes the guest some time. It is the guest's word, agentproto.MaxLog bytes
	// at most.
	Log func(string)
	// NoJail runs the monitor in this process, unconfined: a guest that takes it
	// over has everything that the caller has.
	NoJail bool
	// Warn is told what this host lacks for the jail; nil discards it.
	Warn func(string)
	// Version is duplex's own: a snapshot is used by the version that made it.
	Version string
	// Talk, if set, gets a stream before the machine is made: what the workload says
	// and hears when it connects to the host's agentproto.WorkloadPort, once. It is
	// the callee's to close, and ends with the machine.
	Talk func(*os.File)
	// Snapshot is what the machine is restored from instead of being booted; nil
	// boots it. It must be one for SnapshotKey of the spec. Run takes its memory.
	Snapshot *snapshot.Snapshot
}

// Run implements workload.Runner. Errors are *workload.Error, or ctx.Err() when
// ctx ended first.
func (r Runner) Run(ctx context.Context, spec workload.Spec, stdio workload.Stdio, rec *workload.Recorder) (workload.Exit, error) {
	leave, err := r.joinBridge()
	if err != nil {
		return workload.Exit{}, err
	}
	exit, err := r.runMachine(ctx, spec, stdio, rec)
	if lerr := leave(); err == nil {
		err = lerr
	}
	rec.Stamp(workload.PhaseTornDown)
	return exit, err
}

// runMachine makes the machine and runs the workload in it.
func (r Runner) runMachine(ctx context.Context, spec workload.Spec, stdio workload.Stdio, rec *workload.Recorder) (workload.Exit, error) {
	used := startUsage()
	started := time.Now()
	memory, err := memorySize(spec.Resources)
	if err != nil {
		return workload.Exit{}, err
	}
	m, err := r.newMachine(spec, memory, rec)
	if err != nil {
		return workload.Exit{}, err
	}
	if r.Snapshot != nil {
		m.resume(r.Snapshot)
		defer func() { _ = m.options.restore.close() }() // if nobody came to map it
	}
	exit, err := m.run(ctx, r.session(m, spec, started, rec, stdio.Running), m.start(spec), stdio)
	used.record(m.stats, m.cost, rec)
	return exit, err
}

// memorySize is the guest's memory for a limit: whole pages, and neither too
// little to boot nor more than a guest can address.
func memorySize(res workload.Resources) (uint64, error) {
	switch n := res.MemoryBytes; {
	case n == 0:
		return DefaultMemory, nil
	case n < MinMemory:
		return 0, &workload.Error{
			Op:     "make the microVM",
			Err:    fmt.Errorf("%d MiB of memory is too little for a guest kernel and a workload", n>>20),
			Remedy: fmt.Sprintf("Give it at least --memory %dm.", MinMemory>>20),
		}
	default:
		return uint64(n) &^ 4095, nil
	}
}

// diskID is the serial number of the image's disk, by which the agent finds it.
const diskID = "rootfs"

// start is what the agent is told; paths of the host mean nothing to it.
func (m *machine) start(spec workload.Spec) *agentproto.Start {
	start := &agentproto.Start{Balloon: true, Shares: m.shares, Network: m.network}
	if spec.Rootfs.EROFS != "" {
		start.Root = diskID
	}
	spec.Rootfs = workload.Rootfs{Digest: spec.Rootfs.Digest}
	spec.Volumes = nil
	start.Spec = spec
	if m.restored {
		start.Clone = agentproto.NewClone()
	}
	return start
}

func (r Runner) session(m *machine, spec workload.Spec, started time.Time, rec *workload.Recorder, running func(workload.Controller)) *agentproto.Session {
	s := &agentproto.Session{
		Control: m.streams[agentproto.Control], Stdin: m.streams[agentproto.Stdin],
		Stdout: m.streams[agentproto.Stdout], Stderr: m.streams[agentproto.Stderr],
		Recorder: rec, OnLog: r.Log,
	}
	m.session = s
	if running != nil {
		s.OnStarted = func() { running(controller{m}) }
	}
	if spec.Timeout > 0 {
		s.Deadline = started.Add(spec.Timeout)
	}
	return s
}

// run boots the machine and stays with the session until both have ended.
func (m *machine) run(ctx context.Context, s *agentproto.Session, start *agentproto.Start, stdio workload.Stdio) (workload.Exit, error) {
	defer func() {
		close(m.over)
		_ = m.streams[further].Close()
	}()
	vmCtx, endVM := context.WithCancel(ctx)
	defer endVM()
	slow := time.AfterFunc(m.bootTimeout, func() {
		if !m.connected.Load() {
			m.overdue.Store(true)
			endVM()
		}
	})
	defer slow.Stop()
	ended, down := make(chan ending, 1), make(chan struct{})
	go func() {
		defer close(down)
		exit, stats, err := Boot(vmCtx, *m.hardware, m.options)
		m.stats = stats
		ended <- ending{exit, err}
	}()
	exit, err := s.Run(ctx, start, stdio)
	if err != nil && ctx.Err() == nil && !isOwn(err) {
		exit, err = workload.Exit{}, m.explain(err, ended)
	}
	endVM()
	<-down
	return exit, err
}

// ending is how the machine ended.
type ending struct {
	exit vmm.Exit
	err  error
}

// isOwn says whether err explains itself.
func isOwn(err error) bool {
	var own *workload.Error
	return errors.As(err, &own)
}
