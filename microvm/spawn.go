package microvm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/confine"
	"github.com/duplex-run/duplex/internal/jail"
)

// spawn starts the process: in namespaces of its own where this host allows it.
func (p *process) spawn(files *parcel, who confine.Identity) (isolated bool, err error) {
	var control, report *os.File
	if p.control, control, err = controlPair(); err != nil {
		return false, err
	}
	defer func() { _ = control.Close() }()
	if p.report, report, err = os.Pipe(); err != nil {
		return false, err
	}
	defer func() { _ = report.Close() }()
	if err := confine.CloseOnExec(); err != nil {
		return false, err
	}
	if p.program, err = openProgram(); err != nil {
		return false, err
	}
	extra := append([]*os.File{control, report, p.program}, files.files...)
	for isolated := true; ; {
		p.cmd = monitorCommand(extra, who, isolated)
		p.cmd.Stderr = &p.stderr
		err = p.launch()
		switch {
		case err == nil:
			return isolated, nil
		case errors.Is(err, unix.ETXTBSY): // who has just made the file has yet to close it
			if extra[2], err = openSelf(); err != nil {
				return false, err
			}
			_ = p.program.Close()
			p.program = extra[2]
		case isolated && noNamespaces(err):
			isolated = false
		default:
			return false, err
		}
	}
}

// monitorCommand is the monitor to be started with files, the third of which is its
// executable.
func monitorCommand(files []*os.File, who confine.Identity, isolated bool) *exec.Cmd {
	cmd := &exec.Cmd{
		Path: programPath, Args: []string{monitorName}, Dir: "/",
		// No reading of cgroup files, which are gone, and no huge pages for the heap
		// (guest memory may have them).
		Env:         []string{"GODEBUG=updatemaxprocs=0,containermaxprocs=0,disablethp=1"},
		ExtraFiles:  files,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	if isolated {
		cmd.SysProcAttr = jail.Attributes(who)
	}
	cmd.SysProcAttr.Setsid = true // no controlling terminal
	return cmd
}

// programPath names the executable among the descriptors that a monitor starts with.
// By its number here it could not be named: starting a process moves them.
var programPath = fmt.Sprintf("/proc/self/fd/%d", programFile)

// openProgram opens the executable of the monitor.
func openProgram() (*os.File, error) {
	if Program != nil {
		if f, err := Program(); err == nil {
			return f, nil
		}
	}
	return openSelf()
}

func openSelf() (*os.File, error) { return os.Open("/proc/self/exe") }

// noNamespaces says whether an error is a host's that gives no user namespaces.
func noNamespaces(err error) bool {
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENOSYS, unix.ENOSPC, unix.EUSERS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// launch starts the command on a thread that outlives it: the monitor dies with
// the thread that started it.
func (p *process) launch() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // ProcessState says how it ended
			close(p.waited)
		}
	}()
	return <-started
}
