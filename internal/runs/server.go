package runs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// Target is what a Server acts on.
type Target struct {
	Spec workload.Spec
	// User resolves a user's name for Exec as it was for the workload.
	User func(name string) (workload.User, error)
	// Signal sends a signal to the workload.
	Signal func(workload.Signal)
	// Hub has the streams of a detached run; nil of one that has its caller's.
	Hub *Hub
	// Forward is set for a run that another duplex has in another machine: what is
	// asked is asked there.
	Forward Forward
}

// Forward asks the duplex that has the run; c reaches its machine.
type Forward interface {
	Exec(ctx context.Context, c workload.Controller, cmd *Command, stdio workload.Stdio) (workload.Exit, error)
	Stats(ctx context.Context, c workload.Controller) (workload.Stats, error)
}

// Server answers at a run's control socket.
type Server struct {
	target   Target
	listener *net.UnixListener
	ctx      context.Context
	cancel   context.CancelFunc
	conns    sync.WaitGroup

	running    chan struct{} // closed when controller is set
	controller workload.Controller
	ended      chan struct{} // closed when exit is set
	exit       workload.Exit
	failure    error
	once       sync.Once
}

// Serve makes the run's control socket and answers there until Finish.
func (o *Own) Serve(t Target) (*Server, error) {
	l, err := listen(o.dir)
	if err != nil {
		return nil, fmt.Errorf("listen for commands to the run: %w", err)
	}
	s := &Server{target: t, listener: l, running: make(chan struct{}), ended: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.accept()
	o.server = s
	return s, nil
}

// Running sets what acts on the workload, which runs now.
func (s *Server) Running(c workload.Controller) {
	s.once.Do(func() {
		s.controller = c
		close(s.running)
	})
}

// finish tells those that wait, and ends what is under way.
func (s *Server) finish(exit workload.Exit, failure error) {
	if s == nil {
		return
	}
	s.exit, s.failure = exit, failure
	close(s.ended)
	_ = s.listener.Close()
	s.cancel()
	s.conns.Wait()
}

// socketIn is a name for a directory's socket that is short enough however long
// the directory's is (unix(7): 108 bytes).
func socketIn(dir *os.File) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), controlName)}
}

func listen(path string) (*net.UnixListener, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	l, err := net.ListenUnix("unix", socketIn(dir))
	if err == nil {
		l.SetUnlinkOnClose(false) // by a name that will be another's: Finish removes it
	}
	return l, err
}

func (s *Server) accept() {
	for {
		c, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of one connection
		}
		s.conns.Go(func() {
			defer func() { _ = c.Close() }()
			if ours(c) {
				s.serve(c)
			}
		})
	}
}

// ours says whether the other end is of the run's user, or root.
func ours(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil || err != nil {
		return false
	}
	return cred.Uid == 0 || int(cred.Uid) == os.Geteuid()
}

// serve answers one connection. Whoever says nothing for ever holds nothing but it.
func (s *Server) serve(c *net.UnixConn) {
	stop := context.AfterFunc(s.ctx, func() { _ = c.CloseRead() })
	defer stop()
	m, files, err := receive(c)
	if err != nil {
		return
	}
	defer closeAll(files)
	answer, err := s.answer(c, m, files)
	if err != nil {
		answer = &Message{Type: Failed, Failure: failureOf(string(m.Type), err)}
	}
	_ = write(c, answer) // who asked may have gone
}

func (s *Server) answer(c *net.UnixConn, m *Message, files []*os.File) (*Message, error) {
	switch m.Type {
	case Exec:
		return s.exec(c, m.Exec, files)
	case Attach:
		return s.attach(c, *m.Size, files)
	case Signal:
		s.target.Signal(workload.Signal(m.Number))
		return &Message{Type: Done}, nil
	case Stats:
		control, err := s.control()
		if err != nil {
			return nil, err
		}
		stats, err := s.stats(control)
		return &Message{Type: Counts, Stats: &stats}, err
	case Wait:
		<-s.ended
		return s.end()
	}
	return nil, fmt.Errorf("a conversation does not begin with %q", m.Type)
}

func (s *Server) end() (*Message, error) {
	if s.failure != nil {
		return nil, s.failure
	}
	return &Message{Type: Ended, Exit: &s.exit}, nil
}

// control is what acts on the workload, once that runs.
func (s *Server) control() (workload.Controller, error) {
	select {
	case <-s.running:
		return s.controller, nil
	case <-s.ended:
		return nil, workload.ErrEnded
	}
}

// exec runs a command. It ends when its caller goes, unless it is detached.
func (s *Server) exec(c *net.UnixConn, cmd *Command, files []*os.File) (*Message, error) {
	control, err := s.control()
	if err != nil {
		return nil, err
	}
	run, err := s.prepare(control, cmd)
	if err != nil {
		return nil, err
	}
	if !cmd.Detach {
		ctx, cancel := context.WithCancel(s.ctx)
		defer cancel()
		stdio := s.follow(c, cancel)
		if len(files) == maxFiles {
			stdio.Out, stdio.Err = files[1], files[2]
			if cmd.Interactive {
				stdio.In = files[0]
			}
		}
		exit, err := run(ctx, stdio)
		return ended(exit, err)
	}
	started := make(chan struct{})
	type result struct {
		exit workload.Exit
		err  error
	}
	done := make(chan result, 1)
	s.conns.Go(func() {
		exit, err := run(s.ctx, workload.Stdio{Running: func(workload.Controller) { close(started) }})
		done <- result{exit, err}
	})
	select {
	case <-started:
		return &Message{Type: Started}, nil
	case r := <-done:
		return ended(r.exit, r.err)
	}
}

func (s *Server) stats(c workload.Controller) (workload.Stats, error) {
	if s.target.Forward != nil {
		return s.target.Forward.Stats(s.ctx, c)
	}
	return c.Stats(s.ctx)
}

// prepare checks a command and returns what runs it.
func (s *Server) prepare(c workload.Controller, cmd *Command) (func(context.Context, workload.Stdio) (workload.Exit, error), error) {
	if s.target.Forward != nil {
		return func(ctx context.Context, stdio workload.Stdio) (workload.Exit, error) {
			return s.target.Forward.Exec(ctx, c, cmd, stdio)
		}, nil
	}
	spec, err := s.spec(cmd)
	return func(ctx context.Context, stdio workload.Stdio) (workload.Exit, error) {
		return c.Exec(ctx, spec, stdio)
	}, err
}

func ended(exit workload.Exit, err error) (*Message, error) {
	if err != nil {
		return nil, err
	}
	return &Message{Type: Ended, Exit: &exit}, nil
}

// follow passes on what the caller of a command sends, to its end, which is told
// by gone.
func (s *Server) follow(c *net.UnixConn, gone func()) workload.Stdio {
	signals, sizes := make(chan workload.Signal, 16), make(chan workload.WinSize, 1)
	go func() {
		defer gone()
		for {
			m, files, err := receive(c)
			if err != nil {
				return
			}
			closeAll(files)
			switch m.Type {
			case Signal:
				select {
				case signals <- workload.Signal(m.Number):
				default: // a command that takes none loses the seventeenth
				}
			case Resize:
				newest(sizes, *m.Size)
			}
		}
	}()
	return workload.Stdio{Signals: signals, Resize: sizes}
}

// newest puts size into c in place of one that nobody has taken. Only one
// goroutine sends to c.
func newest(c chan workload.WinSize, size workload.WinSize) {
	select {
	case <-c:
	default:
	}
	select {
	case c <- size:
	default:
	}
}

// spec is a command in the workload's surroundings.
func (s *Server) spec(cmd *Command) (workload.Spec, error) {
	w := s.target.Spec
	spec := workload.Spec{
		ID: w.ID, Argv: cmd.Argv, Env: slices.Clone(w.Env), Cwd: w.Cwd, User: w.User, Hostname: w.Hostname,
		TTY: cmd.TTY, Size: cmd.Size, Interactive: cmd.Interactive, Rlimits: w.Rlimits,
	}
	if cmd.Cwd != "" {
		spec.Cwd = cmd.Cwd
	}
	if cmd.User != "" {
		u, err := s.target.User(cmd.User)
		if err != nil {
			return spec, err
		}
		// HOME follows the user, unless it is not what the workload's user gave.
		spec.Env = slices.DeleteFunc(spec.Env, func(e string) bool { return e == "HOME="+home(w.User) })
		spec.User = u
	}
	for _, e := range cmd.Env {
		key, _, ok := strings.Cut(e, "=")
		if !ok {
			return spec, fmt.Errorf("environment %q: no value", e)
		}
		spec.Env = append(slices.DeleteFunc(spec.Env, func(old string) bool { return strings.HasPrefix(old, key+"=") }), e)
	}
	return spec, nil
}

func home(u workload.User) string {
	if u.Home == "" {
		return "/"
	}
	return u.Home
}

// attach connects the caller's streams until he goes or the run ends.
func (s *Server) attach(c *net.UnixConn, size workload.WinSize, files []*os.File) (*Message, error) {
	switch {
	case s.target.Hub == nil:
		return nil, &workload.Error{Op: "attach", Err: errors.New("the run is not detached: it has the streams of who started it")}
	case len(files) != maxFiles:
		return nil, errors.New("attach: no streams")
	}
	if err := write(c, &Message{Type: Started}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	stdio := s.follow(c, cancel)
	leave := s.target.Hub.join(files)
	defer leave()
	s.target.Hub.resize(size)
	for {
		select {
		case sig := <-stdio.Signals:
			s.target.Signal(sig)
		case size := <-stdio.Resize:
			s.target.Hub.resize(size)
		case <-s.ended:
			return s.end()
		case <-ctx.Done():
			select {
			case <-s.ended: // which cancels too
				return s.end()
			default:
				return &Message{Type: Done}, nil
			}
		}
	}
}
