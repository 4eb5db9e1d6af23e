package oci

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/fork"
	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/inside"
	"github.com/duplex-run/duplex/container/program"
	"github.com/duplex-run/duplex/oci/cgroups"
)

// child is a process on its way into a container.
type child struct {
	pid     int
	process *os.Process
	conn    handshake.Conn
	direct  *direct // of one without a runtime; nil
}

// layout collects the files a child starts with, in the order of their numbers.
type layout struct {
	files []*os.File
	owned []*os.File // to close when the child has them
	// fork are namespaces that the child joins between fork and execve.
	fork []fork.Join
	// time: the thread has a time namespace for its children, which Linux before
	// 6.3 does not give to those that share its memory until execve.
	time bool
}

// newLayout begins with the standard streams, or /dev/null for a process that
// opens a terminal, then those the caller wants preserved.
func newLayout(terminal bool, stdio [3]*os.File, preserve int) (*layout, error) {
	l := &layout{}
	std := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for i, f := range stdio {
		if f != nil {
			std[i] = f
		}
	}
	if terminal {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		l.owned = append(l.owned, null)
		std = []*os.File{null, null, null}
	}
	l.files = std
	for i := range preserve {
		fd := 3 + i
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, fmt.Errorf("--preserve-fds %d: descriptor %d is not open", preserve, fd)
		}
		l.files = append(l.files, os.NewFile(uintptr(fd), "preserved"))
	}
	return l, nil
}

// add appends a file of the child's own and returns its number there.
func (l *layout) add(f *os.File) int {
	l.files = append(l.files, f)
	l.owned = append(l.owned, f)
	return len(l.files) - 1
}

func (l *layout) close() {
	for _, f := range l.owned {
		_ = f.Close()
	}
	l.owned = nil
}

// start starts a container's process, with preserve descriptors of its user.
func (l *layout) start(preserve int, sys *syscall.SysProcAttr, conn handshake.Conn, enter func() error) (*child, error) {
	exe := fmt.Sprintf("/proc/self/fd/%d", 3+preserve+1)
	return l.startProgram(exe, []string{handshake.OCIName, strconv.Itoa(preserve)}, handshake.Environment, sys, conn, enter)
}

// startProgram starts a child with l and the handshake's end; enter prepares the
// thread that does it, which is not used again.
func (l *layout) startProgram(exe string, argv, env []string, sys *syscall.SysProcAttr, conn handshake.Conn, enter func() error) (*child, error) {
	type result struct {
		p   *os.Process
		err error
	}
	done := make(chan result)
	inside.OnThread(func() {
		err := enter()
		var p *os.Process
		switch {
		case err != nil:
		case len(l.fork) > 0 || l.time && sys.Cloneflags&unix.CLONE_NEWUSER == 0:
			p, err = l.forkExec(exe, argv, sys)
		default:
			p, err = os.StartProcess(exe, argv,
				&os.ProcAttr{Dir: "/", Env: env, Files: l.files, Sys: sys})
		}
		done <- result{p, err}
	})
	r := <-done
	if r.err != nil {
		_ = conn.F.Close()
		return nil, &handshake.StepError{Step: "start the container's process", Err: bare(r.err)}
	}
	return &child{pid: r.p.Pid, process: r.p, conn: conn}, nil
}

// join has the child enter the namespace f: by itself, between fork and execve,
// or by the thread that starts it, in what is returned. Root joins a user
// namespace after all but the mount namespace: others may be of the host, and
// out of reach then. Without root it is what gives the right to the rest.
func (l *layout) join(f *os.File, flag int, p *handshake.Plan) func() error {
	root := os.Geteuid() == 0
	p.Watched = p.Watched || flag == unix.CLONE_NEWPID
	switch {
	case flag == unix.CLONE_NEWUSER || flag == unix.CLONE_NEWTIME || flag == unix.CLONE_NEWPID && !root && len(l.fork) > 0:
		l.owned = append(l.owned, f)
		l.fork = append(l.fork, fork.Join{FD: f.Fd(), Flag: uintptr(flag)})
		if root && len(l.fork) > 1 && flag == unix.CLONE_NEWTIME {
			slices.Reverse(l.fork)
		}
	case flag == unix.CLONE_NEWNS || !root && flag != unix.CLONE_NEWPID:
		p.Join = append(p.Join, handshake.Join{Type: flag, FD: l.add(f)})
	default:
		l.owned = append(l.owned, f)
		return func() error {
			if err := unix.Setns(int(f.Fd()), flag); err != nil {
				return fmt.Errorf("setns %s: %w", f.Name(), err)
			}
			return nil
		}
	}
	return nil
}

// forkExec starts the child by fork.Into.
func (l *layout) forkExec(exe string, argv []string, sys *syscall.SysProcAttr) (*os.Process, error) {
	if len(l.fork) > 0 && sys.Cloneflags&unix.CLONE_NEWUSER != 0 {
		return nil, errors.New("a new user namespace with a time namespace joined by path is not supported")
	}
	cgroup := -1
	if sys.UseCgroupFD {
		cgroup = sys.CgroupFD
	}
	return fork.Into(exe, argv, l.files, l.fork, cgroup, sys.Cloneflags)
}

// bare strips the path from the error of starting a process: it is of a
// descriptor.
func bare(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// newChild lays out what every child starts with: newLayout's files, its end of
// the handshake and its program, the ones that layout.start counts on. alone: no
// other process is in its namespaces yet.
func newChild(terminal bool, stdio [3]*os.File, preserve int, alone bool) (*layout, handshake.Conn, error) {
	var conn handshake.Conn
	l, err := newLayout(terminal, stdio, preserve)
	if err != nil {
		return nil, conn, err
	}
	conn, end, err := handshake.Pair()
	if err != nil {
		l.close()
		return nil, conn, err
	}
	l.add(end)
	open := program.Sealed
	if alone {
		open = program.Open
	}
	exe, err := open()
	if err != nil {
		l.close()
		return nil, conn, errors.Join(err, conn.F.Close())
	}
	l.add(exe)
	return l, conn, nil
}

// startInit starts the container's first process, in its new namespaces.
func (c *Container) startInit(o CreateOptions, p *handshake.Plan) (ch *child, err error) {
	l, conn, err := newChild(p.Process != nil && p.Process.Terminal, o.Stdio, o.PreserveFDs, newNamespace(c.Spec, specs.PIDNamespace))
	if err != nil {
		return nil, err
	}
	defer l.close()
	defer func() {
		if err != nil {
			_ = conn.F.Close() // start may have done it
		}
	}()
	if p.Process != nil {
		p.Process.Preserve = o.PreserveFDs
	}
	sys := &syscall.SysProcAttr{Setsid: true}
	enter, err := c.namespaces(l, sys, p)
	if err != nil {
		return nil, err
	}
	sock, err := c.listen()
	if err != nil {
		return nil, err
	}
	p.ListenFD = l.add(sock)
	if err := c.mapMounts(l, p); err != nil {
		return nil, err
	}
	if err := joinCgroups(c.Cgroups, l, sys, p); err != nil {
		return nil, err
	}
	return l.start(o.PreserveFDs, sys, conn, enter)
}

// joinCgroups has the child enter the groups.
func joinCgroups(set *cgroups.Set, l *layout, sys *syscall.SysProcAttr, p *handshake.Plan) error {
	tasks, err := set.Tasks()
	if err != nil {
		return err
	}
	for _, f := range tasks {
		p.CgroupTasks = append(p.CgroupTasks, l.add(f))
	}
	return cloneInto(set, l, sys)
}

// cloneInto has the child start in the v2 group, if there is one.
func cloneInto(set *cgroups.Set, l *layout, sys *syscall.SysProcAttr) error {
	v2, err := set.Unified()
	if err != nil || v2 == nil {
		return err
	}
	l.owned = append(l.owned, v2)
	sys.UseCgroupFD, sys.CgroupFD = true, int(v2.Fd())
	return nil
}

// namespaces splits those of the bundle into flags of clone(2), descriptors that
// the child joins by itself, and what the starting thread has to do.
func (c *Container) namespaces(l *layout, sys *syscall.SysProcAttr, p *handshake.Plan) (func() error, error) {
	var before []func() error
	for _, t := range namespaceTypes {
		n, ok := namespace(c.Spec, t.kind)
		if !ok {
			continue
		}
		if n.Path == "" {
			switch t.kind {
			case specs.CgroupNamespace: // by itself, when it is in its cgroup
			case specs.TimeNamespace:
				l.time = true
				before = append(before, func() error { return newTimeNamespace(c.Spec.Linux.TimeOffsets) })
			case specs.UserNamespace:
				mapIDs(c.Spec.Linux, sys)
			default:
				sys.Cloneflags |= uintptr(t.flag)
			}
			continue
		}
		f, err := openNamespace(t.kind, n.Path)
		if err != nil {
			return nil, err
		}
		if f := l.join(f, t.flag, p); f != nil {
			before = append(before, f)
		}
	}
	return allOf(before), nil
}

// allOf runs list in order, up to the first error.
func allOf(list []func() error) func() error {
	return func() error {
		for _, f := range list {
			if err := f(); err != nil {
				return err
			}
		}
		return nil
	}
}

// mapIDs makes a user namespace in which the child is user 0.
func mapIDs(l *specs.Linux, sys *syscall.SysProcAttr) {
	sys.Cloneflags |= unix.CLONE_NEWUSER
	convert := func(list []specs.LinuxIDMapping) (out []syscall.SysProcIDMap) {
		for _, m := range list {
			out = append(out, syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)})
		}
		return out
	}
	sys.UidMappings, sys.GidMappings = convert(l.UIDMappings), convert(l.GIDMappings)
	sys.GidMappingsEnableSetgroups = os.Geteuid() == 0
	sys.Credential = &syscall.Credential{NoSetGroups: os.Geteuid() != 0}
}

func (ch *child) kill() { _ = ch.process.Kill() } // an error means that it has ended

// close lets go of the child, which lives on; one whose handshake is not over
// ends with it.
func (ch *child) close() {
	if ch.direct != nil {
		ch.direct.close()
	}
	_ = ch.conn.F.Close()
	_ = ch.process.Release()
}

// callbacks answer what a child asks for on its way.
type callbacks struct {
	terminal, notify func(*os.File) error
	hooks            func() error
}

// await follows the child until it is ready: waiting for start, or, of exec,
// about to execute.
func (ch *child) await(on callbacks) error {
	if ch.direct != nil {
		return ch.direct.await(on)
	}
	for {
		m, err := ch.conn.Receive()
		if err != nil {
			return ch.blame(err)
		}
		switch m.Kind {
		case handshake.KindReady:
			return nil
		case handshake.KindFailed:
			return failure(m)
		case handshake.KindHooks:
			if err = on.hooks(); err == nil {
				if err := ch.conn.Send(handshake.Message{Kind: handshake.KindGo}); err != nil {
					return ch.blame(err)
				}
			}
		case handshake.KindTerminal:
			err = on.terminal(m.File)
		case handshake.KindNotify:
			err = on.notify(m.File)
		default:
			err = fmt.Errorf("handshake: unexpected %q", m.Kind)
		}
		if err != nil {
			return err
		}
	}
}

// blame explains the end of a handshake: by the child's last word, or its end.
func (ch *child) blame(err error) error {
	_ = ch.conn.F.SetReadDeadline(time.Now().Add(time.Second))
	for {
		m, rerr := ch.conn.Receive()
		if rerr != nil {
			break
		}
		if m.Kind == handshake.KindFailed {
			return failure(m)
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		ch.kill()
		state, werr := ch.process.Wait()
		if werr == nil {
			err = fmt.Errorf("it ended early: %v (a memory or process limit that is too small does that)", state)
		}
	}
	return &handshake.StepError{Step: "start the container's process", Err: err}
}
