package microvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
)

// further is, among the streams to the agent, the one that carries no bytes of
// its own: each message on it is a socket, which the monitor connects with
// agentproto.ExecPort of the guest.
const further agentproto.Port = 1 << 10

// controller is a machine whose workload runs.
type controller struct{ *machine }

var _ workload.Controller = controller{}

// Exec implements workload.Controller.
func (m controller) Exec(ctx context.Context, spec workload.Spec, stdio workload.Stdio) (workload.Exit, error) {
	var started func()
	if stdio.Running != nil {
		started = func() { stdio.Running(m) }
	}
	exit, err := agentproto.RunFurther(ctx, m.open, spec, stdio, started)
	switch {
	case err == nil || ctx.Err() != nil || isOwn(err):
		return exit, err
	case errors.Is(err, agentproto.ErrGone) && m.isOver(endGrace):
		return workload.Exit{Signal: int(unix.SIGKILL)}, nil // with the machine
	case errors.Is(err, agentproto.ErrGone):
		err = errors.New("the guest's agent let it down")
	}
	return workload.Exit{}, &workload.Error{Op: "run a command in the microVM", Err: err}
}

// open opens a stream of a further session with the agent.
func (m controller) open(p agentproto.Port) (io.ReadWriteCloser, error) {
	ours, theirs, err := socketPairs([]agentproto.Port{p})
	if err != nil {
		return nil, err
	}
	err = errors.Join(m.hand(theirs[p]), theirs[p].Close())
	if err != nil {
		return nil, errors.Join(err, ours[p].Close())
	}
	return ours[p], nil
}

// hand passes a socket to the monitor.
func (m controller) hand(f *os.File) error {
	err := m.sendFile(f)
	if err != nil && m.isOver(endGrace) {
		return workload.ErrEnded
	}
	return err
}

// isOver says whether the machine ends within a time.
func (m *machine) isOver(within time.Duration) bool {
	select {
	case <-m.over:
		return true
	case <-time.After(within):
		return false
	}
}

func (m controller) sendFile(f *os.File) error {
	raw, err := m.streams[further].SyscallConn()
	if err != nil {
		return err
	}
	werr := raw.Write(func(fd uintptr) bool {
		err = unix.Sendmsg(int(fd), []byte{0}, unix.UnixRights(int(f.Fd())), nil, unix.MSG_NOSIGNAL)
		return !errors.Is(err, unix.EAGAIN)
	})
	return errors.Join(werr, err)
}

// dialGrace bounds how long the guest may take to accept a stream.
const dialGrace = time.Minute

// more connects each socket that comes with the agent, until conn is closed.
func (b *bridge) more(conn *net.UnixConn) {
	for {
		s, err := receiveFile(conn)
		if err != nil {
			return
		}
		b.copies.Go(func() {
			defer func() { _ = s.Close() }()
			ctx, cancel := context.WithTimeout(context.Background(), dialGrace)
			c, err := b.device.Dial(ctx, agentproto.ExecPort)
			cancel()
			if err == nil { // else closing it says so
				carry(c, s)
			}
		})
	}
}

// receiveFile takes one message with a socket.
func receiveFile(conn *net.UnixConn) (*os.File, error) {
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(b[:], oob)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("a message without a socket: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("a message without a socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "exec"), nil // close-on-exec, as ReadMsgUnix asks for
}
