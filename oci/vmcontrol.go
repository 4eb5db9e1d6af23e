package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// controlWait is how long a guest may take to answer; one on an emulated host is
// slow. A guest that does not answer is killed by SIGKILL only.
const controlWait = 20 * time.Second

// askMachine asks the supervisor of the container's machine.
func (c *Container) askMachine(q word) (word, error) {
	f, err := c.dialAt(controlSock)
	if err != nil {
		return word{}, errNotRunning
	}
	defer func() { _ = f.Close() }()
	if err := f.SetDeadline(time.Now().Add(controlWait)); err != nil {
		return word{}, err
	}
	a, err := newTalk(f).ask(q)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errors.New("the guest does not answer")
	}
	return a, err
}

// killGuest has the guest's runtime send a signal. SIGKILL ends the machine where
// that does not help.
func (c *Container) killGuest(sig unix.Signal, all bool) error {
	status := c.Status()
	switch {
	case status == specs.StateStopped:
		return errNotRunning
	case status == statePaused && sig != unix.SIGKILL:
		return errors.New("the container is paused, and its machine can take no signal but KILL: resume it first")
	}
	fd, err := c.pidfd()
	if err != nil {
		return errNotRunning
	}
	defer func() { _ = unix.Close(fd) }()
	if sig != unix.SIGKILL || status != statePaused {
		_, err = c.askMachine(word{Op: opKill, Signal: sig, All: all})
		if sig != unix.SIGKILL || err == nil && endsWithin(fd, controlWait) {
			return err
		}
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return errNotRunning
	}
	return nil
}

// endsWithin waits for the end of a process: a machine takes a while for its own,
// and engines give a process that was killed some seconds.
func endsWithin(pidfd int, limit time.Duration) bool {
	for deadline := time.Now().Add(limit); ; {
		left := max(time.Until(deadline), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == 1
		}
	}
}

// pauseMachine stops the machine's monitor with all its vCPUs, or lets it go on.
// The freezer would not do: before Linux 6.13 KVM has a kernel thread in the group,
// which does not freeze.
func (c *Container) pauseMachine(pause bool) error {
	op := opResume
	if pause {
		op = opPause
	}
	if _, err := c.askMachine(word{Op: op}); err != nil {
		return err
	}
	c.VM.Paused = pause
	return c.save()
}

// signalMonitor is for pauseMachine: the monitor is this process's only child.
func signalMonitor(pause bool) error {
	sig, until := unix.SIGCONT, unix.WCONTINUED
	if pause {
		sig, until = unix.SIGSTOP, unix.WSTOPPED
	}
	pids, err := children()
	if err != nil {
		return err
	}
	if len(pids) != 1 {
		return fmt.Errorf("%d monitors", len(pids))
	}
	if err := unix.Kill(pids[0], sig); err != nil {
		return err
	}
	// Stopped is it when all its threads are: looked at, and not taken from who
	// waits for its end.
	for {
		err := unix.Waitid(unix.P_PID, pids[0], nil, until|unix.WNOWAIT|unix.WEXITED, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// children lists those of this process.
func children() ([]int, error) {
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		for _, f := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return nil, err
			}
			out = append(out, pid)
		}
	}
	return out, nil
}

// serveControl answers commands, each on a connection of its own.
func (s *supervisor) serveControl(l *os.File) {
	for {
		fd, _, err := unix.Accept4(int(l.Fd()), unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return
		}
		go s.answer(os.NewFile(uintptr(fd), controlSock))
	}
}

func (s *supervisor) answer(f *os.File) {
	defer func() { _ = f.Close() }()
	from, streams, err := receiveStreams(f)
	defer func() {
		for _, f := range streams {
			_ = f.Close()
		}
	}()
	if err != nil {
		return
	}
	t := newTalkOf(f, from)
	q, err := t.hear()
	if err != nil {
		return
	}
	switch q.Op {
	case opExec:
		if err := s.exec(t, q, streams); err != nil {
			_ = t.say(errorWord(err))
		}
		return
	case opPause, opResume:
		_ = t.say(errorWord(signalMonitor(q.Op == opPause)))
		return
	}
	a, err := s.talk.ask(q)
	if err != nil {
		a = errorWord(err)
	}
	_ = t.say(a) // who asked may have gone
}
