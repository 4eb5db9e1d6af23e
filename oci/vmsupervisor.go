package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/oci/machine"
)

// supervisor has one container's machine, from create to its end.
type supervisor struct {
	c       *Container
	plan    *guestPlan
	create  handshake.Conn // to the process that creates the container, until it is ready
	ready   atomic.Bool
	talk    *talk // to the runtime in the guest
	control atomic.Pointer[workload.Controller]
	execs   atomic.Uint64
	stdio   workload.Stdio
	tty     *terminal
	created chan struct{} // closed when the container is
	ended   chan struct{} // the machine has
	exit    workload.Exit
	err     error
}

// supervise is that process. Its status is the program's, as a container's first
// process has it.
func supervise(root, id string) int {
	s := &supervisor{create: handshake.Conn{F: os.NewFile(3, "handshake")}, created: make(chan struct{}), ended: make(chan struct{})}
	unix.CloseOnExec(3)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err := s.bring(ctx, cancel, root, id)
	if err != nil && !s.ready.Load() {
		_ = s.create.Send(failedMachine(err)) // a creator that is gone has no use for it
		return workload.StatusError
	}
	if err == nil {
		<-s.ended
		err = s.err
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "duplex: %v\n", err)
		return workload.StatusError
	}
	return s.exit.Status()
}

// failedMachine carries err to the creator, with its status and remedy.
func failedMachine(err error) handshake.Message {
	m := handshake.Failed(err)
	var werr *workload.Error
	if errors.As(err, &werr) {
		m.Step, m.Remedy, m.Status = werr.Op, werr.Remedy, werr.Status
		m.Error = err.Error()
		if werr.Err != nil {
			m.Error = werr.Err.Error()
		}
		if m.Status == 0 {
			m.Status = workload.StatusError
		}
	}
	return m
}

// bring brings the container to where it waits for start, and serves it.
func (s *supervisor) bring(ctx context.Context, cancel func(), root, id string) error {
	if _, err := s.create.Expect(handshake.KindGo); err != nil {
		return err
	}
	var err error
	if s.c, err = Open(root, id, false); err != nil {
		return err
	}
	if s.plan, err = planGuest(s.c.Spec, s.c.Bundle); err != nil {
		return err
	}
	s.c.VM.Names.give(s.plan.spec)
	if err := s.plan.shareFiles(s.c.path(sharedDir)); err != nil {
		return err
	}
	// The machine's network is what the hooks make.
	if err := s.create.Send(handshake.Message{Kind: handshake.KindHooks}); err != nil {
		return err
	}
	if _, err := s.create.Expect(handshake.KindGo); err != nil {
		return err
	}
	if err := s.streams(); err != nil {
		return err
	}
	start, err := s.c.listen()
	if err != nil {
		return err
	}
	control, err := s.c.listenAt(controlSock)
	if err != nil {
		return err
	}
	go func() { // its creator's end, before the container is ready, is its own
		_, _ = s.create.Receive()
		if !s.ready.Load() {
			cancel()
		}
	}()
	if err := s.boot(ctx); err != nil {
		return err
	}
	s.ready.Store(true)
	if err := s.create.Send(handshake.Message{Kind: handshake.KindReady}); err != nil {
		return err
	}
	_ = unix.Shutdown(int(s.create.F.Fd()), unix.SHUT_RDWR)
	go s.serveStart(start)
	go s.serveControl(control)
	go s.forwardSignals()
	return nil
}

// boot starts the machine and returns when the container is created in its guest.
func (s *supervisor) boot(ctx context.Context) error {
	streams := make(chan *os.File, 1)
	vm := machine.Boot{
		Kernel: s.c.VM.Kernel, Initrd: s.c.VM.Initrd, Version: s.c.VM.Version,
		User: s.c.VM.Net == netUser, Talk: func(f *os.File) { streams <- f },
	}
	var err error
	if s.c.VM.Net == netNamespace {
		if vm.Interface, err = machine.Connect(func(text string) { s.say(text) }); err != nil {
			return err
		}
	}
	runner := machine.New(vm)
	ctx, end := context.WithCancel(ctx)
	s.stdio.Running = func(c workload.Controller) { s.control.Store(&c) }
	go func() {
		defer close(s.ended)
		defer end()
		s.exit, s.err = runner.Run(ctx, s.spec(), s.stdio, nil)
		if s.tty != nil {
			s.tty.close()
		}
	}()
	select {
	case f := <-streams:
		s.talk = newTalk(f)
	case <-s.ended:
		return s.early()
	}
	created := make(chan error, 1)
	go func() {
		w, err := s.talk.hear()
		if err == nil {
			err = w.err()
		}
		created <- err
	}()
	select {
	case err = <-created:
	case <-s.ended:
		err = s.early()
	}
	if err == nil {
		close(s.created)
		return nil
	}
	if errors.Is(err, io.EOF) { // the machine ends, and knows why
		select {
		case <-s.ended:
		case <-time.After(endWait):
		}
	}
	end()
	<-s.ended
	if s.err != nil && !errors.Is(s.err, context.Canceled) {
		return s.err
	}
	return err
}

// early is why the machine ended before it was to.
func (s *supervisor) early() error {
	if s.err != nil {
		return s.err
	}
	return errEndedEarly
}

// endWait is how long a machine whose guest is gone may take to end by itself.
const endWait = 10 * time.Second

var errEndedEarly = errors.New("the guest's runtime ended early")

// spec is the machine's workload: this program as the runtime in the guest.
func (s *supervisor) spec() workload.Spec {
	shared := s.c.path(sharedDir)
	spec := workload.Spec{
		ID: s.c.ID, Hostname: s.plan.spec.Hostname, Interactive: true,
		Argv:      []string{guestDir + "/" + guestProgram, "oci", "--root", guestState, GuestCommand, s.c.ID},
		Env:       []string{"PATH=/bin"},
		Volumes:   []workload.Volume{{Host: shared, Guest: guestDir}},
		Resources: workload.Resources{MemoryBytes: s.plan.memory, CPUs: s.plan.cpus},
	}
	if spec.Hostname == "" {
		spec.Hostname = "microvm"
	}
	if s.tty != nil {
		spec.TTY, spec.Size = true, s.tty.size()
	}
	return spec
}

// streams connects the program's: the files that this process has, or a terminal.
func (s *supervisor) streams() error {
	p := s.c.Spec.Process
	if p == nil || !p.Terminal {
		s.stdio = workload.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
		return nil
	}
	var err error
	if s.tty, err = newTerminal(p.ConsoleSize); err != nil {
		return &handshake.StepError{Step: "make the terminal", Err: err}
	}
	s.stdio = workload.Stdio{In: &lateReader{from: s.tty.slave, open: s.created}, Out: s.tty.slave, Resize: s.tty.sizes}
	return s.tty.pass(s.create)
}

// serveStart answers start, at the socket that says that the container waits.
func (s *supervisor) serveStart(l *os.File) {
	for {
		fd, _, err := unix.Accept4(int(l.Fd()), unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return
		}
		conn := handshake.Conn{F: os.NewFile(uintptr(fd), startSock)}
		if m, err := conn.Receive(); err == nil && m.Kind == handshake.KindGo {
			if _, err := s.talk.ask(word{Op: opStart}); err != nil {
				_ = conn.Send(failedMachine(err))
			}
		}
		_ = conn.F.Close()
	}
}

// forwardSignals passes signals that this process gets on to the program, as a
// container's first process would have them.
func (s *supervisor) forwardSignals() {
	in := make(chan os.Signal, 16)
	signal.Notify(in)
	signal.Reset(syscall.SIGURG, syscall.SIGCHLD, syscall.SIGPIPE)
	for got := range in {
		if sig, ok := got.(syscall.Signal); ok && sig != unix.SIGWINCH { // the terminal's
			_, _ = s.talk.ask(word{Op: opKill, Signal: sig}) // the program may have ended
		}
	}
}

// say says what the user should know where the container's program writes its
// errors.
func (s *supervisor) say(text string) { fmt.Fprintf(os.Stderr, "duplex: %s\n", text) }
