package oci

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/inside"
)

// direct is a container that a thread of this process builds (inside.Direct).
type direct struct {
	begin chan bool       // to build, or not
	hooks chan chan error // the thread asks for the hooks of the runtime's namespaces
	done  chan error      // the container is built
	once  sync.Once
}

// canDirect reports whether the container can be made by startDirect: by root, and
// without what only a process of its own can enter.
func (c *Container) canDirect(p *handshake.Plan) bool {
	return os.Geteuid() == 0 && inside.CanDirect(p) &&
		newNamespace(c.Spec, specs.PIDNamespace) && !hasNamespace(c.Spec, specs.TimeNamespace)
}

// startDirect starts the container's first process, and the thread that builds the
// container when the child is awaited.
func (c *Container) startDirect(o CreateOptions, p *handshake.Plan) (*child, error) {
	p.Process.Preserve = o.PreserveFDs
	l, err := newLayout(false, o.Stdio, o.PreserveFDs)
	if err != nil {
		return nil, err
	}
	defer l.close()
	conn, fd, theirs, err := handshake.BlockingPair()
	if err != nil {
		return nil, err
	}
	end := l.add(theirs)
	tasks, err := c.Cgroups.Tasks()
	if err != nil {
		return nil, errors.Join(err, conn.F.Close())
	}
	l.owned = append(l.owned, tasks...)
	d, err := inside.NewDirect(p, fd, end, len(tasks))
	if err != nil {
		return nil, errors.Join(err, conn.F.Close())
	}
	l.files = append(l.files, d.Script())
	start, err := c.prepareDirect(l, d, p, tasks)
	if err != nil {
		return nil, errors.Join(err, d.Close(), conn.F.Close())
	}
	x := &direct{begin: make(chan bool, 1), hooks: make(chan chan error), done: make(chan error, 1)}
	type result struct {
		p   *os.Process
		err error
	}
	started := make(chan result)
	inside.OnThread(func() {
		process, pidfd, err := start()
		started <- result{process, err}
		if err == nil {
			x.build(d, pidfd)
			_ = unix.Close(pidfd)
		}
		_ = d.Close()
	})
	r := <-started
	if r.err != nil {
		return nil, errors.Join(&handshake.StepError{Step: "start the container's process", Err: bare(r.err)}, conn.F.Close())
	}
	return &child{pid: r.p.Pid, process: r.p, conn: conn, direct: x}, nil
}

// prepareDirect adds the rest of the process's files to l, and returns what starts
// it, on a thread that is in the container's namespaces afterwards.
func (c *Container) prepareDirect(l *layout, d *inside.Direct, p *handshake.Plan, tasks []*os.File) (func() (*os.Process, int, error), error) {
	sys := &syscall.SysProcAttr{}
	enter, err := c.namespaces(l, sys, p)
	if err != nil {
		return nil, err
	}
	sock, err := c.listen()
	if err != nil {
		return nil, err
	}
	l.add(sock)
	program, err := d.Program()
	if err != nil {
		return nil, err
	}
	l.add(program)
	l.files = append(l.files, tasks...)
	if err := cloneInto(c.Cgroups, l, sys); err != nil {
		return nil, err
	}
	flags := sys.Cloneflags
	return func() (*os.Process, int, error) {
		if err := enter(); err != nil {
			return nil, -1, err
		}
		return inside.StartIn(flags, program, "duplex", l.files, sys)
	}, nil
}

// build is the thread's part.
func (x *direct) build(d *inside.Direct, pidfd int) {
	if !<-x.begin {
		return
	}
	x.done <- d.Build(pidfd, func() error {
		answer := make(chan error)
		x.hooks <- answer
		return <-answer
	})
}

// await has the thread build the container, and returns when its process waits for
// start.
func (x *direct) await(on callbacks) error {
	x.once.Do(func() { x.begin <- true })
	for {
		select {
		case answer := <-x.hooks:
			answer <- on.hooks()
		case err := <-x.done:
			var step *handshake.StepError
			if errors.As(err, &step) {
				return failure(handshake.Failed(err))
			}
			return err
		}
	}
}

// close ends a thread that was not told to build.
func (x *direct) close() { x.once.Do(func() { x.begin <- false }) }
