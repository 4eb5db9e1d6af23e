package handshake

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/plainjson"
	"github.com/duplex-run/duplex/internal/workload"
)

// maxMessage bounds one message, in bytes: argv and env have their own bound
// in the kernel (a quarter of the stack limit, 2 MiB by default), extra files
// theirs, in base64.
const maxMessage = 8<<20 + workload.MaxExtra/3*4

// Conn is one end of the handshake.
type Conn struct{ F *os.File }

// Pair returns both ends of a stream socket, close-on-exec.
func Pair() (Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Conn{}, nil, fmt.Errorf("socketpair: %w", err)
	}
	// Non-blocking on our side only: os.File then waits in the poller and
	// Close wakes a reader. The other end's flags are its own.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return Conn{}, nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return Conn{os.NewFile(uintptr(fds[0]), "handshake")}, os.NewFile(uintptr(fds[1]), "handshake-child"), nil
}

// BlockingPair is Pair for a thread of its own, which reads from descriptor fd, that
// of the Conn.
func BlockingPair() (c Conn, fd int, end *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Conn{}, -1, nil, fmt.Errorf("socketpair: %w", err)
	}
	return Conn{os.NewFile(uintptr(fds[0]), "handshake")}, fds[0], os.NewFile(uintptr(fds[1]), "handshake-child"), nil
}

// Send writes one message: its length as uint32, little-endian, then JSON.
func (c Conn) Send(m Message) error {
	buf, err := Encode(m)
	if err != nil {
		return err
	}
	if _, err := c.F.Write(buf); err != nil {
		return fmt.Errorf("send %s: %w", m.Kind, err)
	}
	return nil
}

// SendFile is Send with an open file attached (SCM_RIGHTS, unix(7)). Only for
// a message far below the socket's buffer: it is sent at once.
func (c Conn) SendFile(m Message, fd int) error {
	buf, err := Encode(m)
	if err != nil {
		return err
	}
	raw, err := c.F.SyscallConn()
	if err != nil {
		return fmt.Errorf("send %s: %w", m.Kind, err)
	}
	var serr error
	err = raw.Write(func(to uintptr) bool {
		serr = unix.Sendmsg(int(to), buf, unix.UnixRights(fd), nil, 0)
		return serr != unix.EAGAIN && serr != unix.EINTR
	})
	if err = errors.Join(err, serr); err != nil {
		return fmt.Errorf("send %s: %w", m.Kind, err)
	}
	return nil
}

// Encode returns the bytes that Send writes.
func Encode(m Message) ([]byte, error) {
	body, err := plainjson.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("send %s: %w", m.Kind, err)
	}
	if len(body) > maxMessage {
		return nil, fmt.Errorf("send %s: %d bytes: %w", m.Kind, len(body), unix.E2BIG)
	}
	head := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	return append(head, body...), nil
}

// Receive reads one message; io.EOF means the other end is gone.
func (c Conn) Receive() (Message, error) {
	var head [4]byte
	file, n, err := c.receiveFile(head[:])
	if err != nil {
		return Message{}, err
	}
	m := Message{}
	if _, err = io.ReadFull(c.F, head[n:]); err == nil {
		m, err = c.receiveBody(binary.LittleEndian.Uint32(head[:]))
	}
	if err != nil && file != nil {
		_ = file.Close()
	}
	m.File = file
	return m, err
}

// ScriptHead, in place of a length, begins what a process without a runtime says
// when it cannot go on: eight bytes follow, Message.Code.
const ScriptHead = 0xffffffff

func (c Conn) receiveBody(n uint32) (Message, error) {
	if n == ScriptHead {
		var code [8]byte
		if _, err := io.ReadFull(c.F, code[:]); err != nil {
			return Message{}, fmt.Errorf("receive: %w", err)
		}
		return Message{Kind: KindScript, Code: int64(binary.NativeEndian.Uint64(code[:]))}, nil
	}
	if n > maxMessage {
		return Message{}, fmt.Errorf("receive: message of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.F, body); err != nil {
		return Message{}, fmt.Errorf("receive: %w", err)
	}
	var m Message
	if err := json.Unmarshal(body, &m); err != nil {
		return Message{}, fmt.Errorf("receive: %w", err)
	}
	return m, nil
}

// receiveFile reads the first bytes of a message and the file that may come
// with them.
func (c Conn) receiveFile(head []byte) (*os.File, int, error) {
	raw, err := c.F.SyscallConn()
	if err != nil {
		return nil, 0, fmt.Errorf("receive: %w", err)
	}
	oob := make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		n, oobn, _, _, rerr = unix.Recvmsg(int(fd), head, oob, unix.MSG_CMSG_CLOEXEC)
		return rerr != unix.EAGAIN && rerr != unix.EINTR
	})
	switch {
	case errors.Join(err, rerr) != nil:
		return nil, 0, fmt.Errorf("receive: %w", errors.Join(err, rerr))
	case n == 0:
		return nil, 0, io.EOF
	case oobn == 0:
		return nil, n, nil
	}
	fd, err := Right(oob[:oobn])
	if err != nil {
		return nil, 0, err
	}
	// A mount (O_PATH) has no such flag.
	if err := unix.SetNonblock(fd, true); err != nil && !errors.Is(err, unix.EBADF) {
		return nil, 0, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "terminal"), n, nil
}

// Right is the one descriptor that came with a message, by its control messages.
func Right(oob []byte) (int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return -1, fmt.Errorf("receive: %d control messages: %w", len(msgs), errors.Join(err, unix.EBADMSG))
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("receive: %d files: %w", len(fds), errors.Join(err, unix.EBADMSG))
	}
	return fds[0], nil
}

// Expect receives a message and turns anything but kind k into an error.
func (c Conn) Expect(k Kind) (Message, error) {
	m, err := c.Receive()
	if err != nil {
		return Message{}, err
	}
	if m.Kind == KindFailed {
		return Message{}, m.Failure()
	}
	if m.Kind != k {
		return Message{}, fmt.Errorf("handshake: got %q, want %q", m.Kind, k)
	}
	return m, nil
}
