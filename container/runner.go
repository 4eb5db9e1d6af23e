package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/cgroup"
	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/inside"
	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/workload"
)

// Runner runs workloads in containers. The zero value is ready to use, by
// several goroutines at once. The program must call Init first in main.
type Runner struct {
	Network Network
	Layers  Layers
}

var _ workload.Runner = Runner{}

// Run implements workload.Runner.
func (o Runner) Run(ctx context.Context, spec workload.Spec, stdio workload.Stdio, rec *workload.Recorder) (workload.Exit, error) {
	layers, err := o.Layers.resolve()
	if err != nil {
		return workload.Exit{}, err
	}
	r, err := prepare(spec, rec, o.Layers.UserNS)
	if err != nil {
		return workload.Exit{}, err
	}
	r.layers, r.options = layers, o
	// The parent-death signal is the thread's: it must outlive the container.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	exit, err := r.run(ctx, stdio)
	if cerr := r.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return exit, r.explain(err)
	}
	rec.Stamp(workload.PhaseTornDown)
	return exit, nil
}

// run is one run under way.
type run struct {
	options  Runner
	spec     workload.Spec
	rec      *workload.Recorder
	ids      idMap
	layers   *resolved
	scratch  *hostdir.Run
	cgroup   *cgroup.Set
	init     *os.Process
	direct   *direct        // of a container without processes of Go's; nil
	conn     handshake.Conn // to init
	exec     handshake.Conn // to exec
	streams  *streams
	network  *network
	selfTime time.Duration
	hungUp   sync.Once
	execute  handshake.Execute // what exec was told
	live     live
}

// prepare checks what can be checked before anything is made.
func prepare(spec workload.Spec, rec *workload.Recorder, userNS bool) (*run, error) {
	if len(spec.Argv) == 0 {
		return nil, &workload.Error{Op: "container", Err: errors.New("no command to run")}
	}
	ids, err := planIDs(spec.User, userNS, spec.ID)
	if err != nil {
		return nil, err
	}
	if ids.single {
		spec.User.Groups = nil // setgroups(2) is denied there
	}
	r := &run{spec: spec, rec: rec, ids: ids, selfTime: cpuTime()}
	return r, nil
}

// run starts, follows and ends the container's processes.
func (r *run) run(ctx context.Context, stdio workload.Stdio) (workload.Exit, error) {
	if err := r.start(stdio); err != nil {
		return workload.Exit{}, err
	}
	stop := context.AfterFunc(ctx, r.kill)
	defer stop()
	exit, err := r.handshake(stdio)
	if exit == nil && err == nil {
		if stdio.Running != nil {
			stdio.Running(controller{r})
		}
		exit, err = r.follow(ctx, stdio)
	}
	if exit != nil {
		r.rec.Stamp(workload.PhaseExited)
		r.account(exit)
	}
	if werr := r.wait(); err == nil && werr != nil {
		err = werr
	}
	if ctx.Err() != nil {
		return workload.Exit{Signal: int(unix.SIGKILL)}, fmt.Errorf("run: %w", context.Cause(ctx))
	}
	if err != nil {
		return workload.Exit{}, err
	}
	return *exit, nil
}

// start makes the cgroups and starts init, with namespaces.
func (r *run) start(stdio workload.Stdio) (err error) {
	if r.scratch, err = hostdir.NewRun(r.spec.ID); err != nil {
		return err
	}
	if r.cgroup, err = makeCgroups(r.spec, r.scratch); err != nil {
		return err
	}
	if r.network, err = startNetwork(r.options.Network); err != nil {
		return &handshake.StepError{Step: "make the network", Err: err}
	}
	if r.streams, err = openStreams(r.spec, stdio); err != nil {
		return err
	}
	err = inside.ErrNotHere
	if r.canDirect() {
		err = r.startDirect()
	}
	if errors.Is(err, inside.ErrNotHere) {
		err = r.startInit()
	}
	r.streams.closeChild()
	if err != nil {
		return &handshake.StepError{Step: "create the namespaces", Err: err}
	}
	r.rec.Stamp(workload.PhaseCreated)
	return nil
}

// handshake takes the container from its first process to execve. It returns
// an Exit when there was nothing to execute.
func (r *run) handshake(stdio workload.Stdio) (*workload.Exit, error) {
	network, err := r.network.setup(r.init.Pid, r.spec)
	if err != nil {
		return nil, &handshake.StepError{Step: "make the network", Err: err}
	}
	setup := &handshake.Setup{
		Rootfs: r.spec.Rootfs, Hostname: launch.Hostname(r.spec),
		Rootless: r.ids.rootless, WaitMapped: r.ids.helper, TTYGroup: !r.ids.single,
		SentLower: r.ids.own, CgroupFD: r.cgroup.Unified() != nil, ExecFiles: len(execFiles(r.cgroup)),
		Extra: r.spec.Extra, Volumes: r.spec.Volumes, ShmBytes: r.spec.ShmBytes, Shared: r.layers.shared(), NoMasks: r.layers.NoMasks,
		Network: network,
	}
	r.spec.Extra = nil // not for exec, nor to be kept
	_, pidsLimit := r.cgroup.PidsLimit()
	r.execute = handshake.Execute{
		Spec: r.spec, SingleID: r.ids.single, Caps: r.layers.caps, Seccomp: r.layers.filter,
		Landlock: r.landlock(), AppArmor: r.layers.apparmor, NewPrivileges: r.layers.NewPrivileges, HostCgroup: r.layers.HostCgroup,
		CgroupTasks: len(r.cgroup.Tasks()), CgroupMounts: r.cgroup.Names(),
		CgroupUnified: cgroup.OnlyUnified(), PidsLimit: pidsLimit,
	}
	if r.direct != nil {
		return r.becomeWorkload(setup)
	}
	return r.tell(setup, stdio)
}

func (r *run) stamp(stamps []handshake.Stamp) {
	for _, s := range stamps {
		r.rec.StampAt(s.Phase, s.Ns)
	}
}

// follow forwards signals and window sizes until init reports the exit.
func (r *run) follow(ctx context.Context, stdio workload.Stdio) (*workload.Exit, error) {
	type result struct {
		exit *workload.Exit
		err  error
	}
	results := make(chan result, 1)
	await := func() result {
		m, err := r.conn.Expect(handshake.KindExit)
		return result{m.Exit, err}
	}
	// An error means that init is gone: its exit is on the way.
	do := deeds{kill: r.kill, signal: func(s workload.Signal) {
		_ = r.conn.Send(handshake.Message{Kind: handshake.KindSignal, Signal: int(s)})
	}}
	if d := r.direct; d != nil {
		await = func() result {
			d.made.AwaitEnd()
			exit, err := d.made.Exit()
			if err == nil && exit == nil {
				err = io.EOF
			}
			return result{exit, err}
		}
		do.signal = func(s workload.Signal) { d.made.Signal(unix.Signal(s)) }
	}
	go func() { results <- await() }()
	res, timedOut := attend(r, results, stdio, do)
	switch {
	case timedOut:
		return &workload.Exit{TimedOut: true}, nil
	case errors.Is(res.err, io.EOF):
		// PID 1 was killed, by duplex or from outside, and all with it.
		return &workload.Exit{Signal: int(unix.SIGKILL)}, nil
	case res.err != nil:
		return nil, res.err
	}
	return res.exit, nil
}

// account records what the container used and adds to exit what the kernel did
// about it.
func (r *run) account(exit *workload.Exit) {
	used := r.cgroup.Used()
	exit.OOM = exit.Status() == 128+int(unix.SIGKILL) && used.OOMKills > 0
	if used.PeakMemory > 0 {
		r.rec.SetUsage(func(u *workload.Usage) {
			if u.Memory == nil {
				u.Memory = map[string]int64{}
			}
			u.Memory["cgroup_peak"] = used.PeakMemory
		})
	}
}

// kill ends PID 1 of the container, and with it all of its processes.
func (r *run) kill() {
	if r.layers.HostPID {
		r.hangUp()
		return
	}
	_ = r.init.Kill() // an error means that it has ended
}

// wait reaps init and waits until the streams are drained. Whatever failed
// before, afterwards no process of the container is left.
func (r *run) wait() error {
	if r.init == nil {
		return nil
	}
	r.live.end(r.layers.HostPID)
	r.kill()
	state, err := r.init.Wait()
	r.live.all.Wait() // they were killed with it
	if err != nil {
		return fmt.Errorf("wait for init: %w", err)
	}
	err = r.streams.drain()
	r.rec.SetUsage(func(u *workload.Usage) {
		u.CPUNs += int64(state.UserTime() + state.SystemTime() + cpuTime() - r.selfTime)
	})
	return err
}

// cpuTime is what this process has used so far.
func cpuTime() time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// close gives back everything start made. It is called once.
func (r *run) close() error {
	for _, c := range []handshake.Conn{r.conn, r.exec} {
		if c.F != nil {
			_ = c.F.Close()
		}
	}
	errs := []error{r.direct.close(), r.network.close()}
	if r.streams != nil {
		errs = append(errs, r.streams.close())
	}
	if r.cgroup != nil {
		errs = append(errs, r.cgroup.Close())
	}
	if r.scratch != nil {
		errs = append(errs, r.scratch.Close())
	}
	return errors.Join(errs...)
}
