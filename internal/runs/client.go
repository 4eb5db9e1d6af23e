package runs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// Conn is a conversation with a run.
type Conn struct{ c *net.UnixConn }

// ErrNotRunning reports a run that has ended, or not begun.
var ErrNotRunning = errors.New("it is not running")

// Dial begins one.
func Dial(id string) (*Conn, error) {
	path, err := Dir(id)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, ErrNotRunning
	}
	defer func() { _ = dir.Close() }()
	c, err := net.DialUnix("unix", nil, socketIn(dir))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &Conn{c}, nil
}

// Close ends the conversation, and what it was about.
func (c *Conn) Close() error { return c.c.Close() }

// Send sends a message. The files stay the caller's.
func (c *Conn) Send(m *Message, files ...*os.File) error {
	err := write(c.c, m, files...)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return ErrLost
	}
	return err
}

var errForgotten = errors.New("it has ended, and nothing is kept of it")

// ErrLost reports a run whose process ended before it answered.
var ErrLost = errors.New("the run's process has gone")

// Receive returns the next message; a failure of the run's is its error.
func (c *Conn) Receive(ctx context.Context) (*Message, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.c.CloseRead() })
	defer stop()
	m, files, err := receive(c.c)
	closeAll(files)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET):
		return nil, ErrLost
	case err != nil:
		return nil, fmt.Errorf("talk to the run: %w", err)
	case m.Type == Failed:
		return nil, m.Failure.error()
	}
	return m, nil
}

// Ask sends one message to a run and returns the answer.
func Ask(ctx context.Context, id string, m *Message) (*Message, error) {
	c, err := Dial(id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	if err := c.Send(m); err != nil {
		return nil, err
	}
	return c.Receive(ctx)
}

// AwaitEnd waits until a run has ended, and returns how.
func AwaitEnd(ctx context.Context, id string) (workload.Exit, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		m, err := Ask(ctx, id, &Message{Type: Wait})
		if err == nil && m.Exit != nil {
			return *m.Exit, nil
		}
		lost := errors.Is(err, ErrLost)
		if !lost && !errors.Is(err, ErrNotRunning) {
			return workload.Exit{}, err
		}
		r, err := Find(id)
		switch {
		case err != nil && lost:
			return workload.Exit{}, errForgotten
		case err != nil:
			return workload.Exit{}, err
		case r.Error != "":
			return workload.Exit{}, errors.New(r.Error)
		case r.State() == "exited":
			return *orKilled(r.Exit), nil
		}
		select { // it does not listen yet, or its process is on its way out
		case <-ctx.Done():
			return workload.Exit{}, ctx.Err()
		case <-tick.C:
		}
	}
}

// isLocked says whether the run in a directory lives.
func isLocked(dir string) bool {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer func() { _ = lock.Close() }()
	return errors.Is(unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
