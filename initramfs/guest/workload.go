package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/procstat"
	"github.com/duplex-run/duplex/internal/workload"
)

// serve runs one workload from its start message until the host hangs up. What
// was done before the machine was saved is not done again; saved is nil in one
// that has booted.
func serve(h *host, l links, start *agentproto.Start, saved *stage) error {
	fail := func(step string, err error) error {
		return h.send(&agentproto.Message{Type: agentproto.Failed, Step: step, Error: err.Error()})
	}
	if err := becomeClone(start, saved); err != nil {
		return fail("make the restored machine one of its own", err)
	}
	step("set clock, names and network")
	if err := setIdentity(start, saved); err != nil {
		return fail("set up the machine", err)
	}
	balloon, err := saved.balloonLater(start.Balloon)
	if err != nil {
		return fail("set up the machine", err)
	}
	step("mount the root file system")
	files, err := prepareRoot(start, saved)
	if err != nil {
		return fail("set up the root file system", err)
	}
	step("find the command")
	path, exit, err := prepareCommand(&start.Spec)
	if err != nil {
		return fail("prepare the command", err)
	}
	kids := new(children)
	w := &running{kids: kids}
	if exit == nil {
		w, exit, err = startWorkload(&start.Spec, path, l, kids)
	}
	if err != nil {
		return fail("start the command", err)
	}
	if exit != nil {
		go w.obey(h)
		return finish(h, l, files, &agentproto.Exit{Exit: *exit})
	}
	kids.leave()
	if err := (&commands{kids: kids, limits: start.Spec.Resources}).listen(l[agentproto.Further]); err != nil {
		return fail("start the command", err)
	}
	if err := h.send(&agentproto.Message{Type: agentproto.Started, PID: w.pid}); err != nil {
		return err
	}
	go w.obey(h)
	balloon()
	return finish(h, l, files, w.wait())
}

// finish reports the exit, returns the files the host asked for, and waits for
// the host to end the machine.
func finish(h *host, l links, files *carried, exit *agentproto.Exit) error {
	if err := sendLog(h); err != nil {
		return err
	}
	if err := h.send(&agentproto.Message{Type: agentproto.Exited, Exit: exit}); err != nil {
		return err
	}
	if files != nil && len(files.back) > 0 {
		out := &counter{f: l[agentproto.Return]}
		done := &agentproto.Message{Type: agentproto.Returned}
		if err := files.send(out); err != nil {
			done.Error = err.Error()
		}
		done.Bytes = out.n
		if err := h.send(done); err != nil {
			return err
		}
	}
	select {
	case <-h.gone:
	case <-time.After(hangUpWait):
	}
	return nil
}

// hangUpWait bounds how long the agent waits for the host to hang up before it
// ends the machine all the same. The host may still be reading output.
const hangUpWait = time.Minute

// counter counts what goes through.
type counter struct {
	f *os.File
	n uint64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.f.Write(p)
	c.n += uint64(n)
	return n, err
}

func setIdentity(start *agentproto.Start, saved *stage) error {
	if start.TimeNs > 0 {
		ts := unix.NsecToTimespec(start.TimeNs)
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			return fmt.Errorf("set the clock: %w", err)
		}
	}
	if err := unix.Sethostname([]byte(launch.Hostname(start.Spec))); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if saved == nil {
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	return networkUp(start.Network, saved)
}

// prepareCommand writes the extra files, finds the command and seals the root
// file system when it is to be read-only.
func prepareCommand(spec *workload.Spec) (string, *workload.Exit, error) {
	for _, x := range spec.Extra {
		if err := os.Remove(x.Path); err != nil && !os.IsNotExist(err) {
			return "", nil, err
		}
		if err := os.WriteFile(x.Path, x.Data, 0o600); err != nil {
			return "", nil, err
		}
		if err := os.Chmod(x.Path, os.FileMode(x.Mode&0o777)); err != nil {
			return "", nil, err
		}
	}
	path, exit, err := launch.Prepare(*spec)
	if err != nil || exit != nil || !spec.ReadOnly {
		return path, exit, err
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return "", nil, fmt.Errorf("make the root read-only: %w", err)
	}
	return path, nil, nil
}

// running is a process of the workload's, the first or a further command, and its
// streams.
type running struct {
	pid            int
	kids           *children
	ended          <-chan syscall.WaitStatus
	stdin          *input
	stdout, stderr *output
	terminal       *os.File // the pty's master; nil without a TTY
	oomBefore      uint64
}

func startWorkload(spec *workload.Spec, path string, l links, kids *children) (*running, *workload.Exit, error) {
	group, err := limit(spec.Resources)
	if err != nil {
		return nil, nil, err
	}
	if err := sizeShm(spec.ShmBytes); err != nil {
		return nil, nil, err
	}
	step("start the command")
	mark(agentproto.MarkWorkload)
	return startProcess(spec, path, l, group, kids)
}

// startProcess starts a command in group, which it closes; nil is none.
func startProcess(spec *workload.Spec, path string, l links, group *os.File, kids *children) (*running, *workload.Exit, error) {
	if group != nil {
		defer func() { _ = group.Close() }()
	}
	r := &running{oomBefore: oomKills(), kids: kids}
	child, err := r.streams(spec, l)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		for _, f := range child {
			_ = f.Close()
		}
	}()
	attr := &syscall.ProcAttr{Env: launch.Environ(*spec), Sys: &syscall.SysProcAttr{
		Setsid: true, Setctty: spec.TTY, Credential: launch.SysCredential(spec.User)}}
	for _, f := range child {
		attr.Files = append(attr.Files, f.Fd())
	}
	if group != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(group.Fd())
	}
	if len(spec.Rlimits) > 0 {
		runtime.LockOSThread() // the tracer is a thread
		defer runtime.UnlockOSThread()
		attr.Sys.Ptrace = true
	}
	pid, ch, err := kids.start(func() (int, error) { return syscall.ForkExec(path, spec.Argv, attr) })
	r.pid, r.ended = pid, ch.ended
	runtime.KeepAlive(child)
	if errors.Is(err, errEnded) {
		return r, nil, err
	}
	if err != nil {
		return r, launch.ExecFailed(spec.Argv[0], err), nil
	}
	if len(spec.Rlimits) > 0 {
		err = kids.limits(pid, ch, spec.Rlimits)
	}
	return r, nil, err
}

// obey carries out the host's messages until the control stream ends, which is
// how the host says that it needs the machine no more.
func (r *running) obey(h *host) {
	defer close(h.gone)
	for {
		m, err := agentproto.ReadFromHost(h.control)
		if err != nil {
			return
		}
		switch m.Type {
		case agentproto.Signal:
			r.kids.signal(r.pid, unix.Signal(m.Signal))
		case agentproto.Resize:
			r.resize(*m.Size)
		case agentproto.StdinEOF:
			if r.stdin != nil {
				r.stdin.end(m.Bytes)
			}
		case agentproto.Closed:
			// The next write of the workload gets it a SIGPIPE.
			r.close(m.Stream)
		case agentproto.Pulse:
			interruptCPUs()
			_ = h.send(&agentproto.Message{Type: agentproto.Pulse}) // a host that is gone ends the loop
		case agentproto.Count:
			_ = h.send(&agentproto.Message{Type: agentproto.Count, Pids: int32(procstat.Threads())})
		}
	}
}

// close stops reading an output stream of the workload.
func (r *running) close(stream string) {
	out := r.stdout
	if stream == agentproto.Stderr.Name() {
		out = r.stderr
	}
	if out != nil {
		_ = out.from.Close()
	}
}

// wait reaps until the workload and everything it started is gone.
func (r *running) wait() *agentproto.Exit {
	r.kids.reap(r.pid)
	return r.report(r.exitOf(<-r.ended))
}

// settle waits for the end of the command, and for what it has written: others
// that write to its streams may go on, but nobody listens to them any more.
func (r *running) settle() *agentproto.Exit {
	exit := r.exitOf(<-r.ended)
	r.stdout.settle()
	if r.stderr != nil {
		r.stderr.settle()
	}
	return r.report(exit)
}

// report waits until the streams are drained.
func (r *running) report(e workload.Exit) *agentproto.Exit {
	exit := agentproto.Exit{Exit: e}
	<-r.stdout.done
	exit.StdoutBytes = r.stdout.sent.Load()
	if r.stderr != nil {
		<-r.stderr.done
		exit.StderrBytes = r.stderr.sent.Load()
	}
	return &exit
}

func (r *running) exitOf(ws syscall.WaitStatus) workload.Exit {
	e := workload.Exit{Code: ws.ExitStatus()}
	if ws.Signaled() {
		e = workload.Exit{Signal: int(ws.Signal())}
	}
	e.OOM = e.Status() == 128+int(syscall.SIGKILL) && oomKills() > r.oomBefore
	return e
}

// oomKills is the kernel's count of processes killed for want of memory.
func oomKills() uint64 {
	stat, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(stat)) {
		if v, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(v), 10, 64)
			return n
		}
	}
	return 0
}
