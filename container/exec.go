package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/fork"
	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/program"
	"github.com/duplex-run/duplex/internal/workload"
)

// controller acts on a container whose workload runs.
type controller struct{ r *run }

var _ workload.Controller = controller{}

// live keeps the container's first process from being reaped while its
// namespaces are opened, and its further commands together.
type live struct {
	mu    sync.Mutex
	ended bool
	execs map[int]*os.Process // of further commands
	all   sync.WaitGroup
}

// Exec implements workload.Controller. The command is a child of this process and
// not of the container's, in its namespaces and cgroups; from there on it goes
// through the same steps as the workload did.
func (c controller) Exec(ctx context.Context, spec workload.Spec, stdio workload.Stdio) (workload.Exit, error) {
	if c.r.ids.single {
		if spec.User.UID != 0 || spec.User.GID != 0 {
			_, err := planIDs(spec.User, false, "")
			return workload.Exit{}, err
		}
		spec.User.Groups = nil
	}
	spec.Rootfs, spec.Volumes, spec.Extra, spec.ReadOnly = workload.Rootfs{}, nil, nil, false
	x := &run{spec: spec, ids: c.r.ids, layers: c.r.layers}
	process, err := c.start(x, stdio)
	if err == nil {
		defer c.r.live.remove(process.Pid)
		var exit workload.Exit
		if exit, err = x.stay(ctx, c, process, stdio); err == nil {
			exit.OOM = exit.Status() == 128+int(unix.SIGKILL) && c.r.cgroup.Used().OOMKills > 0
			return exit, nil
		}
	}
	if ctx.Err() != nil {
		return workload.Exit{Signal: int(unix.SIGKILL)}, fmt.Errorf("exec: %w", context.Cause(ctx))
	}
	if c.r.live.over() {
		return workload.Exit{Signal: int(unix.SIGKILL)}, nil
	}
	return workload.Exit{}, x.explain(err)
}

func (l *live) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

func (l *live) remove(pid int) {
	l.mu.Lock()
	delete(l.execs, pid)
	l.mu.Unlock()
	l.all.Done()
}

// end says that the container has no use for further commands, and waits for
// those that it has: its end has killed them.
//
// Without a PID namespace it has not, and kill does.
func (l *live) end(kill bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if !kill {
		return
	}
	for _, p := range l.execs {
		_ = p.Kill() // it may have ended
	}
}

// start starts a process in the container and tells it what to become.
func (c controller) start(x *run, stdio workload.Stdio) (*os.Process, error) {
	conn, end, err := handshake.Pair()
	if err != nil {
		return nil, err
	}
	x.exec = conn
	defer func() { _ = end.Close() }()
	if x.streams, err = openStreams(x.spec, stdio); err != nil {
		return nil, errors.Join(err, conn.F.Close())
	}
	process, err := c.fork(x, end)
	x.streams.closeChild()
	if err != nil {
		return nil, errors.Join(err, conn.F.Close(), x.streams.close())
	}
	return process, nil
}

func (c controller) fork(x *run, end *os.File) (*os.Process, error) {
	exe, err := program.Sealed()
	if err != nil {
		return nil, err
	}
	defer func() { _ = exe.Close() }()
	l := &c.r.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, workload.ErrEnded
	}
	ns, err := openNamespaces(c.r.init.Pid)
	defer ns.close()
	if err != nil {
		return nil, err
	}
	tasks := c.r.cgroup.Tasks()
	files := slices.Concat(x.streams.child(), []*os.File{end}, tasks, []*os.File{ns.mount, exe})
	group := -1
	if u := c.r.cgroup.Unified(); u != nil {
		group = int(u.Fd())
	}
	path := fmt.Sprintf("/proc/self/fd/%d", len(files)-1)
	process, err := fork.Into(path, []string{handshake.ExecName}, files, ns.joins(), group, 0)
	if err != nil {
		return nil, &handshake.StepError{Step: "enter the container", Err: err}
	}
	x.execute = c.r.execute
	x.execute.Spec, x.execute.PidsLimit = x.spec, ""
	x.execute.Landlock = nil                                     // of two domains, neither may look into the other's processes
	x.execute.CgroupMounts, x.execute.CgroupUnified = nil, false // are mounted
	x.execute.Join = []handshake.Join{{Type: unix.CLONE_NEWNS, FD: len(files) - 2}}
	if l.execs == nil {
		l.execs = map[int]*os.Process{}
	}
	l.execs[process.Pid] = process
	l.all.Add(1)
	return process, nil
}

// namespaces are a process's, but for that of cgroups: the same is made anew.
type namespaces struct {
	mount, user *os.File
	rest        []*os.File
	flags       []int // of rest
}

func openNamespaces(pid int) (*namespaces, error) {
	ns := &namespaces{}
	open := func(name string) (*os.File, error) { return os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name)) }
	var err error
	if ns.mount, err = open("mnt"); err != nil {
		return ns, err
	}
	for _, t := range []struct {
		name string
		flag int
	}{{"net", unix.CLONE_NEWNET}, {"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS}, {"pid", unix.CLONE_NEWPID}} {
		f, err := open(t.name)
		if err != nil {
			return ns, err
		}
		if own(f, t.name) { // shared with the host: a user namespace gives no right to join it
			_ = f.Close()
			continue
		}
		ns.rest, ns.flags = append(ns.rest, f), append(ns.flags, t.flag)
	}
	user, err := open("user")
	if err != nil {
		return ns, err
	}
	if own(user, "user") {
		return ns, user.Close() // one cannot join one's own
	}
	ns.user = user
	return ns, nil
}

// own reports whether a namespace is this process's.
func own(f *os.File, name string) bool {
	ours, err1 := os.Stat("/proc/self/ns/" + name)
	theirs, err2 := f.Stat()
	return err1 == nil && err2 == nil && os.SameFile(ours, theirs)
}

// joins are in order: without root a user namespace is what gives the right to
// the others; root of the host needs his own for those that are not its.
func (ns *namespaces) joins() []fork.Join {
	var out []fork.Join
	for i, f := range ns.rest {
		out = append(out, fork.Join{FD: f.Fd(), Flag: uintptr(ns.flags[i])})
	}
	if ns.user == nil {
		return out
	}
	user := fork.Join{FD: ns.user.Fd(), Flag: unix.CLONE_NEWUSER}
	if os.Geteuid() == 0 {
		return append(out, user)
	}
	return append([]fork.Join{user}, out...)
}

func (ns *namespaces) close() {
	for _, f := range append(ns.rest, ns.mount, ns.user) {
		_ = f.Close() // a nil one says so
	}
}

// stay takes a further command to its execve and stays with it to its end.
func (r *run) stay(ctx context.Context, c controller, process *os.Process, stdio workload.Stdio) (workload.Exit, error) {
	defer func() { _ = r.exec.F.Close() }()
	defer func() { _ = r.streams.close() }()
	stop := context.AfterFunc(ctx, func() { _ = process.Kill() })
	defer stop()
	waited := make(chan *os.ProcessState, 1)
	go func() {
		state, _ := process.Wait() // nil says that it failed
		waited <- state
	}()
	exit, err := r.become(stdio)
	if err != nil || exit != nil {
		_ = process.Kill() // it may have ended
		<-waited
		if exit != nil {
			return *exit, err
		}
		return workload.Exit{}, err
	}
	if stdio.Running != nil {
		stdio.Running(c)
	}
	state, timedOut := attend(r, waited, stdio, deeds{
		signal: func(s workload.Signal) { _ = process.Signal(syscall.Signal(s)) }, // it may have ended
		kill:   func() { _ = process.Kill() },
	})
	if err := r.streams.settle(); err != nil {
		return workload.Exit{}, err
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case ctx.Err() != nil:
		return workload.Exit{}, ctx.Err()
	case timedOut:
		return workload.Exit{TimedOut: true}, nil
	case !ok:
		return workload.Exit{}, errors.New("wait for the command: no status")
	case status.Signaled():
		return workload.Exit{Signal: int(status.Signal())}, nil
	}
	return workload.Exit{Code: status.ExitStatus()}, nil
}

// become has the process become the command.
func (r *run) become(stdio workload.Stdio) (*workload.Exit, error) {
	if err := r.exec.Send(handshake.Message{Kind: handshake.KindExecute, Execute: &r.execute}); err != nil {
		return nil, r.blame(err)
	}
	if err := r.exec.Send(handshake.Message{Kind: handshake.KindGo}); err != nil {
		return nil, r.blame(err)
	}
	return r.awaitExec(stdio)
}
