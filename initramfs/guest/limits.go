package main

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// sizeShm gives /dev/shm another size than tmpfs's own, half of memory.
func sizeShm(size int64) error {
	if size == 0 {
		return nil
	}
	if err := unix.Mount("", "/dev/shm", "", unix.MS_REMOUNT|hard, "size="+strconv.FormatInt(size, 10)); err != nil {
		return fmt.Errorf("set the size of /dev/shm: %w", err)
	}
	return nil
}

var errLimits = errors.New("set the resource limits")

// forkExec starts the command, with its resource limits. They are set from
// outside, while it stands still for its tracer (ptrace(2)) before its first
// instruction: limits of this process's own would hit the agent. Only the workload has limits,
// which is started before anything waits for other children: that would see it
// stop, too.
func forkExec(path string, spec *workload.Spec, attr *syscall.ProcAttr) (int, error) {
	if len(spec.Rlimits) > 0 {
		runtime.LockOSThread() // the tracer is a thread
		defer runtime.UnlockOSThread()
		attr.Sys.Ptrace = true
	}
	pid, err := syscall.ForkExec(path, spec.Argv, attr)
	if err != nil {
		return 0, err
	}
	if len(spec.Rlimits) == 0 {
		return pid, nil
	}
	if err := setRlimits(pid, spec.Rlimits); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		return 0, fmt.Errorf("%w: %w", errLimits, err)
	}
	return pid, nil
}

// setRlimits waits for the child to stop, sets its limits and lets it go on.
func setRlimits(pid int, limits []workload.Rlimit) error {
	var (
		ws  syscall.WaitStatus
		err error
	)
	for {
		_, err = syscall.Wait4(pid, &ws, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil && !ws.Stopped() {
		err = fmt.Errorf("it ended early: %#x", uint32(ws))
	}
	for _, l := range limits {
		if err == nil {
			err = unix.Prlimit(pid, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil)
		}
	}
	if err != nil {
		return err
	}
	return syscall.PtraceDetach(pid)
}
