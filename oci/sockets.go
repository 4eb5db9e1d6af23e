package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
)

// listen makes the socket that the container waits at until start.
func (c *Container) listen() (*os.File, error) { return c.listenAt(startSock) }

// listenAt makes a socket in the state directory.
func (c *Container) listenAt(name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	err = c.atSocket(name, func(sa unix.Sockaddr) error { return unix.Bind(fd, sa) })
	if err == nil {
		err = unix.Listen(fd, 4)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make %s: %w", name, err), f.Close())
	}
	return f, nil
}

// dial connects to the container, waiting to be started.
func (c *Container) dial() (handshake.Conn, error) {
	f, err := c.dialAt(startSock)
	return handshake.Conn{F: f}, err
}

// dialAt connects to a socket in the state directory.
func (c *Container) dialAt(name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = c.atSocket(name, func(sa unix.Sockaddr) error { return unix.Connect(fd, sa) })
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// atSocket names the socket through an open directory: the path of a Unix socket
// has 107 bytes at most (unix(7)), that of a state directory more.
func (c *Container) atSocket(name string, do func(unix.Sockaddr) error) error {
	dir, err := os.OpenFile(c.dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return do(&unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)})
}

// sendTimeout bounds how long a peer may take to read what it is sent.
const sendTimeout = 10 * time.Second

// passTerminal hands the master of the container's terminal on.
func (o CreateOptions) passTerminal(master *os.File) error {
	if master == nil {
		return errors.New("the container sent no terminal")
	}
	if o.ConsoleSocket == "" {
		o.Terminal(master)
		return nil
	}
	defer func() { _ = master.Close() }()
	if err := sendFile(o.ConsoleSocket, []byte(master.Name()), master); err != nil {
		return fmt.Errorf("send the terminal to the console socket: %w", err)
	}
	return nil
}

// passListener sends the listener of the seccomp filter to the agent of the
// bundle (config-linux.md, "The Container Process State").
func (c *Container) passListener(listener *os.File, pid int) error {
	if listener == nil {
		return errors.New("the container sent no seccomp listener")
	}
	defer func() { _ = listener.Close() }()
	s := c.Spec.Linux.Seccomp
	data, err := json.Marshal(specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid,
		Metadata: s.ListenerMetadata, State: c.specState(specs.StateCreating),
	})
	if err != nil {
		return err
	}
	if err := sendFile(s.ListenerPath, data, listener); err != nil {
		return fmt.Errorf("send the seccomp listener to linux.seccomp.listenerPath: %w", err)
	}
	return nil
}

// sendFile sends data and an open file to the Unix socket at path. A listener
// that never reads it is none of ours; one whose queue is full is given
// sendTimeout.
func sendFile(path string, data []byte, f *os.File) error {
	if !filepath.IsAbs(path) {
		abs, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		path = abs
	}
	conn, err := net.DialTimeout("unix", path, sendTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("not a Unix socket")
	}
	if err := u.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { _, _, serr = u.WriteMsgUnix(data, unix.UnixRights(int(fd)), nil) }); err != nil {
		return err
	}
	return serr
}
