package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/workload"
)

// commands runs further commands beside the workload, see agentproto.ExecPort.
type commands struct {
	kids   *children
	limits workload.Resources

	mu       sync.Mutex
	sessions map[string]links // those that are not complete yet

	// launching: the working directory is the whole agent's, from the moment a
	// command is looked for until it is started.
	launching sync.Mutex
}

// attachWait bounds how long the streams of one session may take to be there.
const attachWait = 30 * time.Second

// listen takes streams of the host from now on: those in further, which the lab
// has, or vsock's.
func (c *commands) listen(further *os.File) error {
	if further != nil {
		agentproto.NewMux(further, c.take)
		return nil
	}
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: agentproto.ExecPort})
	}
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		return fmt.Errorf("listen for further commands: %w", err)
	}
	go func() { // to the end of the machine
		for {
			conn, from, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBADF) {
				return
			}
			if err != nil {
				continue // a stream that is gone again
			}
			// A program of the guest may reach this port where vsock loops back.
			if vm, ok := from.(*unix.SockaddrVM); !ok || vm.CID != unix.VMADDR_CID_HOST {
				_ = unix.Close(conn)
				continue
			}
			go c.attach(os.NewFile(uintptr(conn), "vsock:exec"))
		}
	}()
	return nil
}

// take gives a stream that is none of the kernel's the shape of one.
func (c *commands) take(s io.ReadWriteCloser) {
	defer func() { _ = s.Close() }()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "duplex-agent: exec:", err)
		return
	}
	near := os.NewFile(uintptr(fds[0]), "further")
	go c.attach(os.NewFile(uintptr(fds[1]), "further"))
	go func() {
		_, _ = io.Copy(near, s) // until the host closes it
		_ = near.Close()
	}()
	_, _ = io.Copy(s, near) // until the agent closes it
}

// attach finds out what a stream is for, and serves the session that it
// completes.
func (c *commands) attach(f *os.File) {
	_ = f.SetReadDeadline(time.Now().Add(attachWait))
	m, err := agentproto.ReadFromHost(f)
	if err != nil || m.Type != agentproto.Attach {
		_ = f.Close()
		return
	}
	_ = f.SetReadDeadline(time.Time{})
	l := c.join(m, f)
	if l == nil {
		return
	}
	defer l.close()
	h := &host{control: l[agentproto.Control], gone: make(chan struct{})}
	if err := c.serve(h, l); err != nil {
		fmt.Fprintln(os.Stderr, "duplex-agent: exec:", err) // the host has gone
	}
}

// join adds f to its session and returns that when it is complete.
func (c *commands) join(m *agentproto.Message, f *os.File) links {
	p, _ := agentproto.PortNamed(m.Stream) // was validated
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.sessions[m.Session]
	if !ok {
		if c.sessions == nil {
			c.sessions = map[string]links{}
		}
		l = links{}
		c.sessions[m.Session] = l
		time.AfterFunc(attachWait, func() { c.forget(m.Session, l) })
	}
	if l[p] != nil {
		_ = f.Close()
		return nil
	}
	l[p] = f
	for _, p := range agentproto.ExecPorts {
		if l[p] == nil {
			return nil
		}
	}
	delete(c.sessions, m.Session)
	return l
}

// forget gives up a session whose streams have not all come.
func (c *commands) forget(session string, l links) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range agentproto.ExecPorts {
		if l[p] == nil {
			delete(c.sessions, session)
			l.close()
			return
		}
	}
}

func (l links) close() {
	for _, f := range l {
		_ = f.Close()
	}
}

// serve runs one command from hello until the host hangs up.
func (c *commands) serve(h *host, l links) error {
	if err := h.send(&agentproto.Message{Type: agentproto.Hello, Version: agentproto.Version}); err != nil {
		return err
	}
	m, err := agentproto.ReadFromHost(h.control)
	if err != nil {
		return err
	}
	if m.Type != agentproto.Run {
		return fmt.Errorf("expected start, got %s", m.Type)
	}
	w, exit, err := c.start(&m.Start.Spec, l)
	switch {
	case errors.Is(err, errEnded):
		exit, err = &workload.Exit{Signal: int(unix.SIGKILL)}, nil
	case err != nil:
		return h.send(&agentproto.Message{Type: agentproto.Failed, Step: "start the command", Error: err.Error()})
	}
	if exit != nil {
		go w.obey(h)
		return finish(h, l, nil, &agentproto.Exit{Exit: *exit})
	}
	if err := h.send(&agentproto.Message{Type: agentproto.Started, PID: w.pid}); err != nil {
		c.kids.kill(w.pid)
		return err
	}
	go func() {
		w.obey(h)
		c.kids.kill(w.pid)
	}()
	return finish(h, l, nil, w.settle())
}

// start finds and starts a command, where the workload's limits hold.
func (c *commands) start(spec *workload.Spec, l links) (*running, *workload.Exit, error) {
	c.launching.Lock()
	defer c.launching.Unlock()
	path, exit, err := launch.Prepare(*spec)
	if err != nil || exit != nil {
		return &running{kids: c.kids}, exit, err
	}
	group, err := limited(c.limits)
	if err != nil {
		return nil, nil, err
	}
	return startProcess(spec, path, l, group, c.kids)
}
