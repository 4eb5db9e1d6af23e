package container

import (
	"errors"
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
	conn, fd, end, err := handshake.BlockingPair()
	if err != nil {
		return err
	}
	defer func() { _ = end.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(err, conn.F.Close())
	}
	defer func() { _ = null.Close() }()
	d := &direct{build: make(chan plan), built: make(chan built, 1), over: make(chan struct{})}
	if d.made, err = inside.NewContained(fd); err != nil {
		return errors.Join(err, conn.F.Close())
	}
	files, program, err := d.made.Files(r.streams.child(), end, null, cgroupFiles(r.cgroup))
	if err == nil {
		defer func() { _ = program.Close() }()
		r.init, err = d.start(program, files, r.layers.cloneFlags()|r.network.flags())
	}
	if err != nil {
		return errors.Join(err, d.made.Close(), conn.F.Close())
	}
	r.conn, r.direct = conn, d
	return nil
}

// start starts PID 1 on a thread in its namespaces.
func (d *direct) start(program *os.File, files []*os.File, flags uintptr) (*os.Process, error) {
	type result struct {
		process *os.Process
		err     error
	}
	started := make(chan result)
	inside.OnThread(func() {
		process, pidfd, err := inside.StartIn(flags, program, handshake.InitName, files, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL})
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
		b.err = &handshake.StepError{Step: "start the workload", Err: errTooSmall}
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
