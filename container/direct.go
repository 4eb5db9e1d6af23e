package container

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/inside"
	"github.com/duplex-run/duplex/internal/workload"
)

// direct is a container that a thread of this process builds (inside.Contained).
type direct struct {
	made  *inside.Contained
	build chan plan
	built chan built
	over  chan struct{} // closed when PID 1 has ended: it dies with the thread
}

// plan is what a container is to be, built how that ended.
type plan struct {
	setup   *handshake.Setup
	execute *handshake.Execute
}

type built struct {
	stamps []handshake.Stamp
	exit   *workload.Exit
	err    error
}

// canDirect reports whether startDirect can make the container: by root, and
// without what only a process of its own can do.
func (r *run) canDirect() bool {
	return os.Geteuid() == 0 && !r.ids.rootless && !r.ids.helper && !r.ids.single && !r.spec.TTY &&
		!r.layers.HostPID && r.layers.apparmor == "" && r.network.Mode != NetworkUser &&
		(r.spec.Resources.Host == nil || r.spec.Resources.Host.OOMScoreAdj == nil)
}

// startDirect starts PID 1, a script, and the thread that builds the container when
// it is told to.
func (r *run) startDirect() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	conn := handshake.Conn{F: os.NewFile(uintptr(fds[0]), "handshake")}
	end := os.NewFile(uintptr(fds[1]), "handshake-child")
	defer func() { _ = end.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(err, conn.F.Close())
	}
	defer func() { _ = null.Close() }()
	d := &direct{build: make(chan plan), built: make(chan built, 1), over: make(chan struct{})}
	if d.made, err = inside.NewContained(fds[0]); err != nil {
		return errors.Join(err, conn.F.Close())
	}
	files, program, err := d.made.Files(r.streams.child(), end, null, cgroupFiles(r.cgroup))
	if err == nil {
		defer func() { _ = program.Close() }()
		r.init, err = d.start(files, r.layers.cloneFlags()|r.network.flags())
	}
	if err != nil {
		return errors.Join(err, d.made.Close(), conn.F.Close())
	}
	r.conn, r.direct = conn, d
	return nil
}

// start starts PID 1 on a thread in its namespaces.
func (d *direct) start(files []*os.File, flags uintptr) (*os.Process, error) {
	type result struct {
		process *os.Process
		err     error
	}
	started := make(chan result)
	inside.OnThread(func() {
		process, pidfd, err := startIn(files, flags)
		started <- result{process, err}
		if err != nil {
			return
		}
		select {
		case p := <-d.build:
			var b built
			b.stamps, b.exit, b.err = d.made.Build(pidfd, p.setup, p.execute)
			d.built <- b
			<-d.over
		case <-d.over:
		}
		_ = unix.Close(pidfd)
	})
	r := <-started
	return r.process, r.err
}

func startIn(files []*os.File, flags uintptr) (*os.Process, int, error) {
	if err := unix.Unshare(int(flags) &^ unix.CLONE_NEWPID); err != nil {
		return nil, -1, fmt.Errorf("unshare: %w", err)
	}
	pidfd := -1
	process, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", files[inside.ProgramFD].Fd()), []string{handshake.InitName}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: unix.CLONE_NEWPID, PidFD: &pidfd},
	})
	if err == nil {
		err = inside.MayTake(process, pidfd)
	}
	return process, pidfd, err
}

// becomeWorkload has the container built and its workload executed; it returns an
// Exit when there was nothing to execute.
func (r *run) becomeWorkload(setup *handshake.Setup) (*workload.Exit, error) {
	r.direct.build <- plan{setup, &r.execute}
	b := <-r.direct.built
	r.stamp(b.stamps)
	var step *handshake.StepError
	if b.err != nil && !errors.As(b.err, &step) {
		b.err = &handshake.StepError{Step: "start the workload", Err: b.err}
	}
	if b.err != nil && r.cgroup.Used().OOMKills > 0 {
		b.err = &handshake.StepError{Step: "start the workload", Err: fmt.Errorf("the memory limit is too small to start anything: %w", unix.ENOMEM)}
	}
	return b.exit, b.err
}

// close ends the thread, when PID 1 has ended.
func (d *direct) close() error {
	if d == nil {
		return nil
	}
	close(d.over)
	return d.made.Close()
}
