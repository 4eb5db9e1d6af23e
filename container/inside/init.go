package inside

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/confine"
	"github.com/duplex-run/duplex/internal/workload"
)

// A child changes the namespaces and credentials of one thread, and that must
// be the one that executes the workload: the main thread, from the beginning.
func init() {
	switch os.Args[0] {
	case handshake.InitName, handshake.ExecName, handshake.OCIName:
		runtime.LockOSThread()
	}
}

// Main turns a process that duplex or init started into the container's init
// or its workload, and does not return then. In any other process it does
// nothing.
func Main() {
	var run func(handshake.Conn) error
	connect := func() (handshake.Conn, error) {
		err := unix.CloseRange(handshake.ConnFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
		return handshake.Conn{F: os.NewFile(handshake.ConnFD, "handshake")}, err
	}
	switch os.Args[0] {
	case handshake.InitName:
		run = initMain
	case handshake.ExecName:
		run = execMain
	case handshake.OCIName:
		run, connect = ociMain, ociConn
	default:
		return
	}
	c, err := connect()
	if err == nil {
		err = run(c)
	}
	if err == nil {
		os.Exit(0)
	}
	// The handshake is the only one to tell: stderr is the workload's.
	_ = c.Send(handshake.Failed(err))
	os.Exit(workload.StatusError)
}

// initMain is PID 1 of the container, from its first instruction to its last.
func initMain(c handshake.Conn) error {
	m, err := c.Expect(handshake.KindSetup)
	if err != nil || m.Setup == nil {
		return &handshake.StepError{Step: "start init", Err: errors.Join(err, errors.New("no setup"))}
	}
	s := m.Setup
	if s.SentLower {
		m, err := c.Expect(handshake.KindRootfs)
		if err != nil {
			return &handshake.StepError{Step: "start init", Err: err}
		}
		s.Lower = m.File
	}
	if s.WaitMapped {
		if err := becomeRoot(c); err != nil {
			return &handshake.StepError{Step: "map user ids", Err: err}
		}
	}
	if s.Shared.PID {
		if err := adopt(); err != nil {
			return &handshake.StepError{Step: "start init", Err: err}
		}
	}
	child, err := startExec(s)
	if err != nil {
		return &handshake.StepError{Step: "start the workload's process", Err: err}
	}
	stamps, err := build(s, c)
	if err != nil {
		return err
	}
	if err := c.Send(handshake.Message{Kind: handshake.KindReady, Stamps: stamps}); err != nil {
		return err
	}
	if err := renounce(); err != nil {
		return &handshake.StepError{Step: "drop init's privileges", Err: err}
	}
	end := func() {}
	if s.Shared.PID {
		end = killChildren
	}
	go follow(c, child, end)
	return reap(c, child, end)
}

// becomeRoot waits for the user id map and takes id 0 in it. Ambient
// capabilities carried this process through its execve.
func becomeRoot(c handshake.Conn) error {
	if _, err := c.Expect(handshake.KindMapped); err != nil {
		return err
	}
	if err := unix.Setresgid(0, 0, 0); err != nil {
		return fmt.Errorf("setgid 0: %w", err)
	}
	if err := unix.Setresuid(0, 0, 0); err != nil {
		return fmt.Errorf("setuid 0: %w", err)
	}
	// Changing ids cleared it (PR_SET_PDEATHSIG(2const)). Should duplex have
	// ended in between: follow notices.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("set the parent-death signal: %w", err)
	}
	return nil
}

// startExec starts the process that becomes the workload, with init's standard
// streams, and closes what init does not need itself.
func startExec(s *handshake.Setup) (int, error) {
	next := handshake.SpareFD
	take := func() uintptr { next++; return uintptr(next - 1) }
	files := []uintptr{0, 1, 2, take()}
	sys := &syscall.SysProcAttr{Setsid: true}
	if s.CgroupFD {
		sys.UseCgroupFD = true
		sys.CgroupFD = int(take())
	}
	for range s.ExecFiles {
		files = append(files, take())
	}
	child, err := syscall.ForkExec("/proc/self/exe", []string{handshake.ExecName},
		&syscall.ProcAttr{Dir: "/", Env: handshake.Environment, Files: files, Sys: sys})
	if err != nil {
		return 0, err
	}
	for fd := handshake.ProgramFD; fd < next; fd++ {
		_ = unix.Close(fd)
	}
	return child, detachStdio()
}

// detachStdio gives the workload's streams up, so that they close when the
// workload closes them.
func detachStdio() error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(null, fd, 0); err != nil {
			return fmt.Errorf("close standard stream %d: %w", fd, err)
		}
	}
	return unix.Close(null)
}

// ignoredByInit are signals that would end a process, sent from outside.
var ignoredByInit = []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2,
	unix.SIGPIPE, unix.SIGALRM, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}

// renounce leaves init what it needs to forward signals, and makes it
// untouchable for the workload: no ptrace, no /proc/1/mem, and no signal but
// those the kernel forces.
func renounce() error {
	if err := confine.Undumpable(); err != nil {
		return err
	}
	for _, n := range ignoredByInit {
		signal.Ignore(n)
	}
	return confine.SetCapabilities(1 << unix.CAP_KILL)
}

// follow forwards signals from duplex and ends the container when duplex is
// gone.
func follow(c handshake.Conn, child int, end func()) {
	for {
		m, err := c.Receive()
		if err != nil {
			end()
			os.Exit(workload.StatusError)
		}
		if m.Kind == handshake.KindSignal {
			// The workload may have ended; then there is nobody to signal.
			_ = unix.Kill(child, unix.Signal(m.Signal))
		}
	}
}

func exitOf(status unix.WaitStatus) *workload.Exit {
	if status.Signaled() {
		return &workload.Exit{Signal: int(status.Signal())}
	}
	return &workload.Exit{Code: status.ExitStatus()}
}

// reap waits for every child, orphans included, until the workload ends, and
// reports how. Returning ends PID 1 and everything in its namespace.
func reap(c handshake.Conn, child int, end func()) error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &handshake.StepError{Step: "wait for the workload", Err: err}
		}
		if pid != child {
			continue
		}
		end()
		err = c.Send(handshake.Message{Kind: handshake.KindExit, Exit: exitOf(status)})
		if errors.Is(err, unix.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
			return nil // duplex is gone
		}
		return err
	}
}
