package microvm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

// openVsock makes the socket device and its bridge to Unix sockets: to those at
// h.Vsock, or to what the parent opened there.
func (h *Hardware) openVsock(files unpacked) (*vsock.Device, *vsock.Bridge, error) {
	d, err := vsock.New(guestCID)
	if err != nil {
		return nil, nil, err
	}
	listener, dial := files.take(fileVsock), files.take(fileDial)
	if listener == nil {
		b, err := d.Bridge(h.Vsock)
		if err != nil {
			return nil, nil, errors.Join(err, d.Close())
		}
		return d, b, nil
	}
	l, err := net.FileListener(listener)
	err = errors.Join(err, listener.Close())
	if err != nil {
		return nil, nil, errors.Join(err, d.Close())
	}
	asker, err := newAsker(dial)
	if err != nil {
		return nil, nil, errors.Join(err, l.Close(), d.Close())
	}
	b, err := vsock.NewBridge(d, l, asker.dial)
	if err != nil {
		return nil, nil, errors.Join(err, d.Close())
	}
	return d, b, nil
}

// The monitor may not open sockets: it asks its parent, over a SOCK_SEQPACKET
// pair, with the port as a little-endian word. The answer is one byte, 1 with a
// connected socket attached or 0.

// asker is the monitor's end.
type asker struct {
	mu   sync.Mutex
	conn *net.UnixConn
}

func newAsker(f *os.File) (*asker, error) {
	c, err := unixConn(f)
	if err != nil {
		return nil, err
	}
	return &asker{conn: c}, nil
}

// unixConn takes f over.
func unixConn(f *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("not a Unix socket"), c.Close())
	}
	return u, nil
}

// dial asks for the socket of a port. The parent answers at once: connecting to
// a Unix socket does not wait. A context that ends before ends all dialling.
func (a *asker) dial(ctx context.Context, port uint32) (net.Conn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { _ = a.conn.Close() })
	defer stop()
	if _, err := a.conn.Write(binary.LittleEndian.AppendUint32(nil, port)); err != nil {
		return nil, err
	}
	var answer [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := a.conn.ReadMsgUnix(answer[:], oob)
	switch {
	case err != nil:
		return nil, err
	case n != 1 || answer[0] != 1:
		return nil, unix.ECONNREFUSED
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("the answer has no socket: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("the answer has no socket: %w", err)
	}
	return unixConn(os.NewFile(uintptr(fds[0]), "vsock")) // close-on-exec, as ReadMsgUnix asks for
}

// answerDials is the parent's end, until the monitor is gone: port P is the Unix
// socket path_P. A port is all that a monitor can choose.
func answerDials(f *os.File, path string) {
	c, err := unixConn(f)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	for {
		var request [5]byte
		n, err := c.Read(request[:])
		if err != nil || n != 4 {
			return // gone, or nonsense
		}
		name := fmt.Sprintf("%s_%d", path, binary.LittleEndian.Uint32(request[:]))
		if err := answerDial(c, name); err != nil {
			return
		}
	}
}

func answerDial(c *net.UnixConn, path string) error {
	answer := func(b byte, oob []byte) error {
		_, _, err := c.WriteMsgUnix([]byte{b}, oob, nil)
		return err
	}
	u, err := net.Dial("unix", path)
	if err != nil {
		return answer(0, nil)
	}
	defer func() { _ = u.Close() }()
	conn, ok := u.(*net.UnixConn)
	if !ok {
		return answer(0, nil)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return answer(0, nil)
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = answer(1, unix.UnixRights(int(fd))) }); err != nil {
		return err
	}
	return sent
}

// listenVsock packs what the monitor needs to bridge to the sockets at path, and
// answers it. What it returns removes the socket.
func listenVsock(path string, files *parcel) (io.Closer, error) {
	l, err := vsock.ListenUnix(path)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("not a Unix socket"), l.Close())
	}
	f, err := u.File()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	files.add(fileVsock, f)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socketpair: %w", err), l.Close())
	}
	files.add(fileDial, os.NewFile(uintptr(fds[1]), "dial"))
	go answerDials(os.NewFile(uintptr(fds[0]), "dial"), path) // ends with the monitor
	return l, nil
}
