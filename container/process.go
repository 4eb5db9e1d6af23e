package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/program"
	"github.com/duplex-run/duplex/internal/workload"
)

// startInit starts a process of Go's as PID 1.
func (r *run) startInit() (err error) {
	var initEnd, execEnd *os.File
	if r.conn, initEnd, err = handshake.Pair(); err != nil {
		return err
	}
	defer func() { _ = initEnd.Close() }()
	if r.exec, execEnd, err = handshake.Pair(); err != nil {
		return err
	}
	defer func() { _ = execEnd.Close() }()
	exe, err := program.Open()
	if err != nil {
		return err
	}
	defer func() { _ = exe.Close() }()
	files := append(r.streams.child(), initEnd, exe, execEnd)
	r.init, err = os.StartProcess(programPath, []string{handshake.InitName}, &os.ProcAttr{
		Dir: "/", Env: handshake.Environment, Files: append(files, cgroupFiles(r.cgroup)...), Sys: r.attributes(),
	})
	return err
}

// programPath names the executable among the descriptors that init starts with.
// By its number here it could not be named: starting a process moves them.
var programPath = fmt.Sprintf("/proc/self/fd/%d", handshake.ProgramFD)

func (r *run) attributes() *syscall.SysProcAttr {
	sys := &syscall.SysProcAttr{
		Setsid:     true,
		Pdeathsig:  syscall.SIGKILL,
		Cloneflags: r.layers.cloneFlags() | r.network.flags(),
	}
	if r.layers.HostPID {
		sys.Pdeathsig = 0 // it has to end its children: it notices by its socket
	}
	r.ids.apply(sys)
	return sys
}

// tell tells init and exec, which are of Go's, what to do.
func (r *run) tell(setup *handshake.Setup, stdio workload.Stdio) (*workload.Exit, error) {
	if err := r.conn.Send(handshake.Message{Kind: handshake.KindSetup, Setup: setup}); err != nil {
		return nil, err
	}
	if err := r.sendImage(); err != nil {
		return nil, err
	}
	if err := r.ids.write(r.init.Pid); err != nil {
		return nil, &handshake.StepError{Step: "map user ids", Err: err}
	}
	if r.ids.helper {
		if err := r.conn.Send(handshake.Message{Kind: handshake.KindMapped}); err != nil {
			return nil, err
		}
	}
	if err := r.exec.Send(handshake.Message{Kind: handshake.KindExecute, Execute: &r.execute}); err != nil {
		return nil, r.blame(err)
	}
	if err := r.network.attach(r.conn); err != nil {
		return nil, err
	}
	m, err := r.conn.Expect(handshake.KindReady)
	if err != nil {
		return nil, err
	}
	r.stamp(m.Stamps)
	if err := r.exec.Send(handshake.Message{Kind: handshake.KindGo}); err != nil {
		return nil, r.blame(err)
	}
	return r.awaitExec(stdio)
}

// awaitExec reads what exec says until its socket closes with a successful
// execve.
func (r *run) awaitExec(stdio workload.Stdio) (*workload.Exit, error) {
	executing := false
	for {
		m, err := r.exec.Receive()
		switch {
		case errors.Is(err, io.EOF) && executing:
			return nil, nil
		case err != nil:
			return nil, r.blame(err)
		}
		switch m.Kind {
		case handshake.KindTerminal:
			if err := r.streams.attachTerminal(m.File, r.spec, stdio); err != nil {
				return nil, err
			}
		case handshake.KindExecuting:
			r.stamp(m.Stamps)
			executing = true
		case handshake.KindExit:
			return m.Exit, nil
		case handshake.KindFailed:
			return nil, m.Failure()
		default:
			return nil, fmt.Errorf("handshake: unexpected %q", m.Kind)
		}
	}
}

// errTooSmall is why a process was killed before the workload was executed.
var errTooSmall = fmt.Errorf("the memory limit is too small to start anything: %w", unix.ENOMEM)

// blame finds out why exec is gone without a word: init knows, or failed itself.
func (r *run) blame(err error) error {
	_ = r.conn.F.SetReadDeadline(time.Now().Add(time.Second))
	m, rerr := r.conn.Receive()
	switch {
	case rerr == nil && m.Kind == handshake.KindFailed:
		return m.Failure()
	case rerr == nil && m.Kind == handshake.KindExit:
		if r.cgroup.Used().OOMKills > 0 {
			err = errTooSmall
		} else {
			err = fmt.Errorf("it ended early: %v", m.Exit)
		}
	}
	return &handshake.StepError{Step: "start the workload", Err: err}
}
