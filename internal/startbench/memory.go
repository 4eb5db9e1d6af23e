package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// cost is what one run takes beside time.
type cost struct {
	Peak  int64 `json:"peak_bytes"` // VmHWM of the largest process of the engine
	Calls int   `json:"system_calls"`
	Execs int   `json:"execs"`
}

// tracer follows all threads of an engine's processes.
type tracer struct {
	cost
	inCall map[int]bool
}

// traced runs e once under ptrace.
func (e engine) traced(ctx context.Context, id string) (cost, error) {
	runtime.LockOSThread() // ptrace(2) belongs to a thread
	defer runtime.UnlockOSThread()
	cmd, err := e.command(ctx, id)
	if err != nil {
		return cost{}, err
	}
	defer closeFiles(cmd)
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return cost{}, err
	}
	t := &tracer{inCall: map[int]bool{}}
	status, err := t.follow(cmd.Process.Pid)
	if err == nil && status != 0 {
		err = fmt.Errorf("exit status %d", status)
	}
	if err != nil {
		return cost{}, fmt.Errorf("%s, traced: %w", e.name, err)
	}
	return t.cost, nil
}

const traceOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK |
	unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL

// follow lets all go on until none is left, and returns the status of the first.
func (t *tracer) follow(first int) (int, error) {
	var ws unix.WaitStatus
	if _, err := unix.Wait4(first, &ws, 0, nil); err != nil {
		return 0, err
	}
	if err := unix.PtraceSetOptions(first, traceOptions); err != nil {
		return 0, err
	}
	if err := unix.PtraceSyscall(first, 0); err != nil {
		return 0, err
	}
	status := 0
	for {
		pid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ECHILD:
			return status, nil
		case err != nil:
			return 0, err
		case ws.Stopped():
			// A thread that was killed meanwhile is told of by the next wait.
			_ = unix.PtraceSyscall(pid, t.stopped(pid, ws))
		case pid == first:
			status = ws.ExitStatus()
		}
	}
}

// stopped looks at a thread that stopped, and returns the signal to go on with.
func (t *tracer) stopped(pid int, ws unix.WaitStatus) int {
	sig := ws.StopSignal()
	switch {
	case sig == unix.SIGTRAP|0x80:
		t.inCall[pid] = !t.inCall[pid]
		if t.inCall[pid] {
			t.call(pid)
		}
		return 0
	case sig == unix.SIGTRAP && ws.TrapCause() > 0:
		if ws.TrapCause() == unix.PTRACE_EVENT_EXEC {
			t.Execs++
		}
		return 0
	case sig == unix.SIGSTOP: // how a new thread begins
		return 0
	}
	return int(sig)
}

// call counts a system call, and before one that ends the process or its program
// takes down how large it has been.
func (t *tracer) call(pid int) {
	t.Calls++
	var regs unix.PtraceRegs
	if unix.PtraceGetRegs(pid, &regs) != nil {
		return // killed
	}
	switch regs.Orig_rax {
	case unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_EXIT_GROUP, unix.SYS_EXIT:
		t.Peak = max(t.Peak, peak(pid))
	}
}

// peak is VmHWM of a process, 0 when it is gone.
func peak(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseInt(fields[0], 10, 64)
	return kib << 10
}
