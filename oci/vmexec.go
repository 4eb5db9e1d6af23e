package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/workload"
)

// execName is argv[0] of the process that stands on the host for a further
// program in a machine: it has its streams, its signals and its status.
const execName = "duplex-oci-vm-exec"

// startGuestExec starts that process.
func (c *Container) startGuestExec(o ExecOptions) (*child, error) {
	if o.PreserveFDs > 0 {
		return nil, notInVM("--preserve-fds", "a descriptor of the host's kernel cannot be had in the guest's")
	}
	l, err := newLayout(o.Process.Terminal, o.Stdio, 0)
	if err != nil {
		return nil, err
	}
	defer l.close()
	return c.startHelper(l, execName, &syscall.SysProcAttr{Setsid: true}, func() error { return nil })
}

// execMessage is what it is told first.
func (c *Container) execMessage(o ExecOptions) (handshake.Message, error) {
	p := *o.Process
	if p.ApparmorProfile != "" {
		CreateOptions{Warn: o.Warn}.warn("process.apparmorProfile has no effect in a microVM: the host's profiles are not in the guest's kernel")
		p.ApparmorProfile = ""
	}
	data, err := json.Marshal(p)
	return handshake.Message{Kind: handshake.KindGo, Process: data}, err
}

// stand is that process.
func stand(root, id string) int {
	create := handshake.Conn{F: os.NewFile(3, "handshake")}
	unix.CloseOnExec(3)
	status, err := standFor(create, root, id)
	if err != nil {
		// A creator that has gone on, or is gone, does not hear it.
		if create.Send(failedMachine(err)) != nil {
			fmt.Fprintf(os.Stderr, "duplex: %v\n", err)
		}
		return workload.StatusError
	}
	return status
}

func standFor(create handshake.Conn, root, id string) (int, error) {
	m, err := create.Expect(handshake.KindGo)
	if err != nil {
		return 0, err
	}
	p := &specs.Process{}
	if err := json.Unmarshal(m.Process, p); err != nil {
		return 0, err
	}
	c, err := Open(root, id, false)
	if err != nil {
		return 0, err
	}
	q := word{Op: opExec, Process: m.Process}
	streams := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	var sizes chan workload.WinSize
	if p.Terminal {
		t, err := newTerminal(p.ConsoleSize)
		if err != nil {
			return 0, &handshake.StepError{Step: "make the terminal", Err: err}
		}
		if err := t.pass(create); err != nil {
			return 0, err
		}
		size := t.size()
		q.Size, sizes = &size, t.sizes
		streams = []*os.File{t.slave, t.slave, t.slave}
	}
	f, err := c.dialAt(controlSock)
	if err != nil {
		return 0, errNotRunning
	}
	defer func() { _ = f.Close() }()
	t := newTalk(f)
	if err := sendStreams(f, streams); err != nil {
		return 0, err
	}
	if _, err := t.ask(q); err != nil {
		return 0, err
	}
	if err := create.Send(handshake.Message{Kind: handshake.KindReady}); err != nil {
		return 0, err
	}
	_ = create.F.Close()
	go passOn(t, sizes)
	end, err := t.hear()
	switch {
	case errors.Is(err, io.EOF):
		return 128 + int(unix.SIGKILL), nil // with the machine
	case err != nil:
		return 0, err
	}
	if err := end.err(); err != nil {
		return 0, err
	}
	return end.Status & 255, nil
}

// passOn tells of signals and sizes, until the process ends.
func passOn(t *talk, sizes <-chan workload.WinSize) {
	in := make(chan os.Signal, 16)
	signal.Notify(in)
	signal.Reset(syscall.SIGURG, syscall.SIGCHLD, syscall.SIGPIPE)
	for {
		w := word{Op: opSignal}
		select {
		case got := <-in:
			sig, ok := got.(syscall.Signal)
			if !ok || sig == unix.SIGWINCH {
				continue
			}
			w.Signal = sig
		case size := <-sizes:
			w.Size = &size
		}
		if t.say(w) != nil {
			return
		}
	}
}

// sendStreams sends three open files, with one byte.
func sendStreams(f *os.File, streams []*os.File) error {
	var fds []int
	for _, s := range streams {
		fds = append(fds, int(s.Fd()))
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Write(func(fd uintptr) bool {
		serr = unix.Sendmsg(int(fd), []byte("\n"), unix.UnixRights(fds...), nil, 0)
		return !errors.Is(serr, unix.EAGAIN) && !errors.Is(serr, unix.EINTR)
	})
	return errors.Join(err, serr)
}

// receiveStreams reads what a command says first, and the open files that may
// have come along. The rest of the conversation is read from what it returns.
func receiveStreams(f *os.File) (io.Reader, []*os.File, error) {
	head, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(3*4))
	n, oobn, _, _, err := unix.Recvmsg(int(f.Fd()), head, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, nil, err
	}
	var files []*os.File
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range messages {
		fds, ferr := unix.ParseUnixRights(&m)
		err = errors.Join(err, ferr)
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "stream"))
		}
	}
	if err == nil && len(files) != 0 && len(files) != 3 {
		err = fmt.Errorf("%d streams", len(files))
	}
	return io.MultiReader(bytes.NewReader(bytes.TrimPrefix(head[:n], []byte("\n"))), f), files, err
}

// exec runs a further program in the machine, with the streams of the process
// that stands for it, until that is gone.
func (s *supervisor) exec(t *talk, q word, streams []*os.File) error {
	p := &specs.Process{}
	if err := json.Unmarshal(q.Process, p); err != nil {
		return err
	}
	control := s.control.Load()
	if control == nil || len(streams) != 3 {
		return errNotRunning
	}
	name := "exec" + strconv.FormatUint(s.execs.Add(1), 10) + ".json"
	file := filepath.Join(s.c.path(sharedDir), name)
	if err := os.WriteFile(file, q.Process, 0o600); err != nil {
		return err
	}
	defer func() { _ = os.Remove(file) }()
	if err := t.say(word{}); err != nil {
		return nil // who asked has gone
	}
	in, err := newUntilReader(streams[0])
	if err != nil {
		return err
	}
	defer in.stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals, sizes := make(chan workload.Signal, 16), make(chan workload.WinSize, 1)
	go func() {
		defer cancel()
		passIn(ctx, t, signals, sizes)
	}()
	spec := workload.Spec{
		Argv: []string{guestDir + "/" + guestProgram, "oci", "--root", guestState, "exec", "--process", guestDir + "/" + name, s.c.ID},
		Env:  []string{"PATH=/bin"}, Cwd: "/", Interactive: true, TTY: p.Terminal,
	}
	stdio := workload.Stdio{In: in, Out: streams[1], Err: streams[2], Signals: signals, Resize: sizes}
	if p.Terminal {
		stdio.Err = nil
		if q.Size != nil {
			spec.Size = *q.Size
		}
	}
	exit, err := (*control).Exec(ctx, spec, stdio)
	if err != nil {
		return err
	}
	_ = t.say(word{Status: exit.Status()})
	return nil
}

// passIn is the other end of passOn.
func passIn(ctx context.Context, t *talk, signals chan<- workload.Signal, sizes chan<- workload.WinSize) {
	for {
		w, err := t.hear()
		switch {
		case err != nil:
			return
		case w.Size != nil:
			offer(ctx, sizes, *w.Size)
		default:
			offer(ctx, signals, workload.Signal(w.Signal))
		}
	}
}

// offer sends v, unless ctx ends first.
func offer[T any](ctx context.Context, to chan<- T, v T) {
	select {
	case to <- v:
	case <-ctx.Done():
	}
}
