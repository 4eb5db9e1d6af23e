package oci

import (
	"errors"
	"os"
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
	if status == specs.StateStopped {
		return errNotRunning
	}
	var err error
	if sig != unix.SIGKILL || status != statePaused {
		if _, err = c.askMachine(word{Op: opKill, Signal: sig, All: all}); err == nil || sig != unix.SIGKILL {
			return err
		}
	}
	fd, err := c.pidfd()
	if err != nil {
		return errNotRunning
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return errNotRunning
	}
	if status == statePaused {
		return c.Cgroups.Freeze(false) // or it would not die
	}
	return nil
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
	if q.Op == opExec {
		if err := s.exec(t, q, streams); err != nil {
			_ = t.say(errorWord(err))
		}
		return
	}
	a, err := s.talk.ask(q)
	if err != nil {
		a = errorWord(err)
	}
	_ = t.say(a) // who asked may have gone
}
