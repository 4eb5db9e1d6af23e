package container

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// The handshake. duplex writes setup to init and execute to exec before it
// starts init, so neither ever waits for its first message.
//
//	duplex                    init (PID 1)              exec (workload to be)
//	  ├─ setup ────────────────▶│                          │
//	  │                         ├─ fork ──────────────────▶│
//	  ├─ mapped (rootless) ────▶│ user ids                 │
//	  │                         │ mounts, pivot_root       │
//	  │◀──────────────── ready ─┤                          │
//	  ├─ go ──────────────────────────────────────────────▶│
//	  │                         │                          │ terminal, cgroup,
//	  │◀───────────────────────────── terminal (with TTY) ─┤ caps, seccomp
//	  │◀──────────────────────────────────────── executing ┤
//	  │                         │                          │ execve: socket closes
//	  ├─ signal ───────────────▶│ kill                     │
//	  │◀───────────────── exit ─┤ wait                     │
//
// Either child sends failed instead of its next message when a step fails, and
// exec sends exit when the command cannot be executed.
type message struct {
	Kind kind `json:"kind"`

	Setup   *setup         `json:"setup,omitempty"`   // setup
	Execute *execute       `json:"execute,omitempty"` // execute
	Stamps  []stamp        `json:"stamps,omitempty"`  // ready, executing
	Signal  int            `json:"signal,omitempty"`  // signal
	Exit    *workload.Exit `json:"exit,omitempty"`    // exit
	Step    string         `json:"step,omitempty"`    // failed: what failed
	Error   string         `json:"error,omitempty"`   // failed: why
	Errno   syscall.Errno  `json:"errno,omitempty"`   // failed: the kernel's reason, if it was that

	file *os.File // terminal: the master
}

type kind string

const (
	kindSetup     kind = "setup"
	kindExecute   kind = "execute"
	kindMapped    kind = "mapped"
	kindReady     kind = "ready"
	kindGo        kind = "go"
	kindTerminal  kind = "terminal"
	kindExecuting kind = "executing"
	kindSignal    kind = "signal"
	kindExit      kind = "exit"
	kindFailed    kind = "failed"
)

// stamp is a phase passed in a child; all processes share the host's clock.
type stamp struct {
	Phase workload.Phase `json:"phase"`
	Ns    int64          `json:"ns"`
}

// setup tells init what to build.
type setup struct {
	Rootfs   workload.Rootfs `json:"rootfs"`
	Hostname string          `json:"hostname"`
	ReadOnly bool            `json:"read_only"`
	Rootless bool            `json:"rootless"`
	// WaitMapped: the user id map is written by another program; wait for it.
	WaitMapped bool `json:"wait_mapped"`
	TTYGroup   bool `json:"tty_group"` // group 5 is mapped
	// Inherited are descriptors from 3 on, by name: exec's socket and, when
	// there is one, the v2 cgroup to start exec in.
	CgroupFD bool `json:"cgroup_fd"`
	// CgroupTasks counts the v1 "tasks" files that follow, for exec.
	CgroupTasks int `json:"cgroup_tasks"`
	// Extra files go into the upper directory.
	Extra []workload.ExtraFile `json:"extra,omitempty"`
}

// execute tells exec what to become.
type execute struct {
	Spec     workload.Spec `json:"spec"`
	SingleID bool          `json:"single_id"` // a user namespace that maps only id 0
	Seccomp  []byte        `json:"seccomp"`
	// CgroupTasks counts the open v1 "tasks" files to join, descriptors 4 on.
	CgroupTasks int `json:"cgroup_tasks"`
	// CgroupMounts are the v1 hierarchies to show below /sys/fs/cgroup. When
	// there are none and the host has v2 only, CgroupUnified shows that.
	CgroupMounts  []string `json:"cgroup_mounts"`
	CgroupUnified bool     `json:"cgroup_unified"`
}

// maxMessage bounds one message, in bytes: argv and env have their own bound
// in the kernel (a quarter of the stack limit, 2 MiB by default), extra files
// theirs, in base64.
const maxMessage = 8<<20 + workload.MaxExtra/3*4

// conn is one end of the handshake.
type conn struct{ f *os.File }

// socketPair returns both ends of a stream socket, close-on-exec.
func socketPair() (conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return conn{}, nil, fmt.Errorf("socketpair: %w", err)
	}
	// Non-blocking on our side only: os.File then waits in the poller and
	// Close wakes a reader. The other end's flags are its own.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return conn{}, nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return conn{os.NewFile(uintptr(fds[0]), "handshake")}, os.NewFile(uintptr(fds[1]), "handshake-child"), nil
}

// send writes one message: its length as uint32, little-endian, then JSON.
func (c conn) send(m message) error {
	buf, err := encode(m)
	if err != nil {
		return err
	}
	if _, err := c.f.Write(buf); err != nil {
		return fmt.Errorf("send %s: %w", m.Kind, err)
	}
	return nil
}

// sendFile is send with an open file attached (SCM_RIGHTS, unix(7)). Only for
// a blocking socket and a message far below its buffer: it is sent at once.
func (c conn) sendFile(m message, fd int) error {
	buf, err := encode(m)
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(connFD, buf, unix.UnixRights(fd), nil, 0); err != nil {
		return fmt.Errorf("send %s: %w", m.Kind, err)
	}
	return nil
}

func encode(m message) ([]byte, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("send %s: %w", m.Kind, err)
	}
	if len(body) > maxMessage {
		return nil, fmt.Errorf("send %s: %d bytes: %w", m.Kind, len(body), unix.E2BIG)
	}
	head := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	return append(head, body...), nil
}

// receive reads one message; io.EOF means the other end is gone.
func (c conn) receive() (message, error) {
	var head [4]byte
	file, n, err := c.receiveFile(head[:])
	if err != nil {
		return message{}, err
	}
	m := message{}
	if _, err = io.ReadFull(c.f, head[n:]); err == nil {
		m, err = c.receiveBody(binary.LittleEndian.Uint32(head[:]))
	}
	if err != nil && file != nil {
		_ = file.Close()
	}
	m.file = file
	return m, err
}

func (c conn) receiveBody(n uint32) (message, error) {
	if n > maxMessage {
		return message{}, fmt.Errorf("receive: message of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.f, body); err != nil {
		return message{}, fmt.Errorf("receive: %w", err)
	}
	var m message
	if err := json.Unmarshal(body, &m); err != nil {
		return message{}, fmt.Errorf("receive: %w", err)
	}
	return m, nil
}

// receiveFile reads the first bytes of a message and the file that may come
// with them.
func (c conn) receiveFile(head []byte) (*os.File, int, error) {
	raw, err := c.f.SyscallConn()
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
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		return nil, 0, fmt.Errorf("receive: %d control messages: %w", len(msgs), errors.Join(err, unix.EBADMSG))
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, 0, fmt.Errorf("receive: %d files: %w", len(fds), errors.Join(err, unix.EBADMSG))
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, 0, errors.Join(err, unix.Close(fds[0]))
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), n, nil
}

// expect receives a message and turns anything but kind k into an error.
func (c conn) expect(k kind) (message, error) {
	m, err := c.receive()
	if err != nil {
		return message{}, err
	}
	if m.Kind == kindFailed {
		return message{}, m.failure()
	}
	if m.Kind != k {
		return message{}, fmt.Errorf("handshake: got %q, want %q", m.Kind, k)
	}
	return m, nil
}

// stepError is a failure with the name of the set-up step, on both sides of
// the handshake.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.step + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// failedMessage carries err to the parent.
func failedMessage(err error) message {
	m := message{Kind: kindFailed, Step: "container", Error: err.Error()}
	var se *stepError
	if errors.As(err, &se) {
		m.Step, m.Error = se.step, se.err.Error()
	}
	_ = errors.As(err, &m.Errno)
	return m
}

// remoteError is an error that came over the handshake: errors.Is sees the
// errno in it.
type remoteError struct {
	text  string
	errno syscall.Errno
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// failure returns the error a failed message carries.
func (m message) failure() error {
	return &stepError{m.Step, &remoteError{m.Error, m.Errno}}
}
