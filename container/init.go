package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// argv[0] of the re-executed processes.
const (
	initName = "duplex-init"
	execName = "duplex-exec"
)

// Descriptors a child starts with, after the standard three.
const (
	connFD  = 3 // init and exec: the handshake
	spareFD = 4 // init: exec's handshake; exec: its first cgroup file
)

// A child changes the namespaces and credentials of one thread, and that must
// be the one that executes the workload: the main thread, from the beginning.
func init() {
	if os.Args[0] == initName || os.Args[0] == execName {
		runtime.LockOSThread()
	}
}

// Init turns a re-executed process into the container's init or its workload.
// In any other process it does nothing. main must call it before anything else.
func Init() {
	var run func(conn) error
	switch os.Args[0] {
	case initName:
		run = initMain
	case execName:
		run = execMain
	default:
		return
	}
	c := conn{os.NewFile(connFD, "handshake")}
	unix.CloseOnExec(connFD)
	err := run(c)
	if err == nil {
		os.Exit(0)
	}
	// The handshake is the only one to tell: stderr is the workload's.
	_ = c.send(failedMessage(err))
	os.Exit(workload.StatusError)
}

// initMain is PID 1 of the container, from its first instruction to its last.
func initMain(c conn) error {
	m, err := c.expect(kindSetup)
	if err != nil || m.Setup == nil {
		return &stepError{"start init", errors.Join(err, errors.New("no setup"))}
	}
	s := m.Setup
	if s.WaitMapped {
		if err := becomeRoot(c); err != nil {
			return &stepError{"map user ids", err}
		}
	}
	child, err := startExec(s)
	if err != nil {
		return &stepError{"start the workload's process", err}
	}
	stamps, err := build(s)
	if err != nil {
		return err
	}
	if err := c.send(message{Kind: kindReady, Stamps: stamps}); err != nil {
		return err
	}
	if err := renounce(); err != nil {
		return &stepError{"drop init's privileges", err}
	}
	go follow(c, child)
	return reap(c, child)
}

// becomeRoot waits for the user id map and takes id 0 in it. Ambient
// capabilities carried this process through its execve.
func becomeRoot(c conn) error {
	if _, err := c.expect(kindMapped); err != nil {
		return err
	}
	if err := unix.Setresgid(0, 0, 0); err != nil {
		return fmt.Errorf("setgid 0: %w", err)
	}
	if err := unix.Setresuid(0, 0, 0); err != nil {
		return fmt.Errorf("setuid 0: %w", err)
	}
	return nil
}

// startExec starts the process that becomes the workload, with init's standard
// streams, and closes what init does not need itself.
func startExec(s *setup) (int, error) {
	next := spareFD
	take := func() uintptr { next++; return uintptr(next - 1) }
	files := []uintptr{0, 1, 2, take()}
	sys := &syscall.SysProcAttr{Setsid: true}
	if s.CgroupFD {
		sys.UseCgroupFD = true
		sys.CgroupFD = int(take())
	}
	for range s.CgroupTasks {
		files = append(files, take())
	}
	child, err := syscall.ForkExec("/proc/self/exe", []string{execName},
		&syscall.ProcAttr{Dir: "/", Env: []string{}, Files: files, Sys: sys})
	if err != nil {
		return 0, err
	}
	for fd := spareFD; fd < next; fd++ {
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

// renounce leaves init what it needs to forward signals, and makes it
// untouchable for the workload: no ptrace, no /proc/1/mem, and no signal but
// those the kernel forces.
func renounce() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("clear dumpable: %w", err)
	}
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGPIPE, unix.SIGALRM, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
	return capsetAllThreads(1 << unix.CAP_KILL)
}

// follow forwards signals from duplex and ends the container when duplex is
// gone.
func follow(c conn, child int) {
	for {
		m, err := c.receive()
		if err != nil {
			os.Exit(workload.StatusError)
		}
		if m.Kind == kindSignal {
			// The workload may have ended; then there is nobody to signal.
			_ = unix.Kill(child, unix.Signal(m.Signal))
		}
	}
}

// reap waits for every child, orphans included, until the workload ends, and
// reports how. Returning ends PID 1 and everything in its namespace.
func reap(c conn, child int) error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &stepError{"wait for the workload", err}
		}
		if pid != child {
			continue
		}
		exit := &workload.Exit{Code: status.ExitStatus()}
		if status.Signaled() {
			exit = &workload.Exit{Signal: int(status.Signal())}
		}
		err = c.send(message{Kind: kindExit, Exit: exit})
		if errors.Is(err, unix.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
			return nil // duplex is gone
		}
		return err
	}
}
