package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/runs"
	"github.com/duplex-run/duplex/internal/workload"
)

// conversation connects the caller's terminal, streams and signals to a command in
// another process's run.
type conversation struct {
	a           *app
	conn        *runs.Conn
	tty         bool
	interactive bool
	detachable  bool // by detachKeys
	undo        []func()
	files       []*os.File // stdin, stdout and stderr of the command
	detached    chan struct{}
}

// detachKeys leave an attached run alone, as docker's do: Ctrl-P Ctrl-Q.
var detachKeys = []byte{16, 17}

// talk begins with first and stays to the end. Detached says that the caller has
// left and the run goes on.
func (c *conversation) talk(ctx context.Context, id string, first *runs.Message) (exit workload.Exit, detached bool, err error) {
	if c.conn, err = runs.Dial(id); err != nil {
		return exit, false, err
	}
	c.detached = make(chan struct{})
	defer c.close()
	if c.tty && c.interactive { // before the first key is read: ^Q is the terminal's own else
		if err := c.raw(); err != nil {
			return exit, false, err
		}
	}
	if err := c.streams(); err != nil {
		return exit, false, err
	}
	if err := c.conn.Send(first, c.files...); err != nil {
		return exit, false, err
	}
	c.closeFiles()
	c.signals()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-c.detached:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		m, err := c.conn.Receive(ctx)
		select {
		case <-c.detached:
			return exit, true, nil
		default:
		}
		switch {
		case errors.Is(err, runs.ErrLost):
			return workload.Exit{Signal: int(unix.SIGKILL), Message: "the run's own process was killed"}, false, nil
		case err != nil:
			return exit, false, err
		case m.Type == runs.Ended:
			return *m.Exit, false, nil
		case m.Type == runs.Done:
			return exit, true, nil
		}
	}
}

// streams makes the descriptors that the command gets. Input goes through a pipe:
// what the command has not read is not taken from the caller's.
func (c *conversation) streams() error {
	in, err := c.input()
	if err != nil {
		return err
	}
	c.files = append(c.files, in)
	for _, w := range []io.Writer{c.a.Out, c.a.Err} {
		f, err := c.output(w)
		if err != nil {
			return err
		}
		c.files = append(c.files, f)
	}
	return nil
}

func (c *conversation) input() (*os.File, error) {
	if !c.interactive {
		return os.Open(os.DevNull)
	}
	fds := make([]int, 2)
	if err := unix.Pipe2(fds, unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	w := os.NewFile(uintptr(fds[1]), "stdin")
	go func() {
		var from io.Reader = c.a.In
		if c.detachable && c.tty {
			from = &keys{from: c.a.In, leave: func() { close(c.detached) }}
		}
		_, _ = io.Copy(w, from) // to the end of either
		_ = w.Close()
	}()
	return os.NewFile(uintptr(fds[0]), "stdin"), nil
}

// output is a descriptor that leads to w.
func (c *conversation) output(w io.Writer) (*os.File, error) {
	if f, ok := w.(*os.File); ok {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), f.Name()), nil
	}
	r, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() { _, _ = io.Copy(w, r); close(done) }()
	c.undo = append(c.undo, func() { <-done; _ = r.Close() })
	return pw, nil
}

func (c *conversation) closeFiles() {
	for _, f := range c.files {
		_ = f.Close()
	}
	c.files = nil
}

func (c *conversation) raw() error {
	fd := int(c.a.In.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return &workload.Error{Op: "set the terminal to raw mode", Err: err}
	}
	c.undo = append(c.undo, func() { _ = term.Restore(fd, old) })
	return nil
}

// signals passes on the caller's signals and the size of his terminal.
func (c *conversation) signals() {
	in := make(chan os.Signal, 16)
	signal.Notify(in, runcli.Forwarded...)
	c.a.StopSignals()
	if c.tty {
		signal.Notify(in, syscall.SIGWINCH)
	}
	done := make(chan struct{})
	c.undo = append(c.undo, func() { signal.Stop(in); close(done) })
	go func() {
		for {
			var m runs.Message
			select {
			case s := <-in:
				if s == syscall.SIGWINCH {
					size := runcli.WinSize(c.sizeFD())
					m = runs.Message{Type: runs.Resize, Size: &size}
				} else if sig, ok := s.(syscall.Signal); ok {
					m = runs.Message{Type: runs.Signal, Number: int(sig)}
				}
			case <-done:
				return
			}
			_ = c.conn.Send(&m) // it may have ended
		}
	}()
}

func (c *conversation) sizeFD() int { return sizeFD(c.a) }

// sizeFD is the terminal whose size counts.
func sizeFD(a *app) int {
	if f, ok := a.Out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return int(f.Fd())
	}
	return int(a.In.Fd())
}

func (c *conversation) close() {
	c.closeFiles()
	_ = c.conn.Close()
	for i := len(c.undo) - 1; i >= 0; i-- {
		c.undo[i]()
	}
}

// keys passes what is typed on, until detachKeys come.
type keys struct {
	from  io.Reader
	leave func()
	held  bool // the first of detachKeys has come
	over  bool
}

func (k *keys) Read(p []byte) (int, error) {
	if k.over {
		return 0, io.EOF
	}
	buf := make([]byte, max(1, len(p)-1)) // room for a key that was held back
	n, err := k.from.Read(buf)
	out := p[:0]
	for _, b := range buf[:n] {
		switch {
		case k.held && b == detachKeys[1]:
			k.over = true
			k.leave()
			return len(out), nil
		case k.held:
			out = append(out, detachKeys[0])
			k.held = false
		}
		if b == detachKeys[0] {
			k.held = true
			continue
		}
		out = append(out, b)
	}
	if len(out) == 0 && err == nil {
		return k.Read(p)
	}
	return len(out), err
}

// needsTerminal refuses a terminal for a caller that has none.
func (a *app) needsTerminal(tty, interactive bool) error {
	if tty && interactive && !term.IsTerminal(int(a.In.Fd())) {
		return &workload.Error{Op: a.Cmd.Name, Err: errors.New("the input device is not a TTY"), Remedy: "leave out -t, or start duplex from a terminal"}
	}
	return nil
}

// ended prints what there is to say of an exit, and returns its status.
func (a *app) ended(exit workload.Exit) error {
	if exit.Message != "" {
		_, _ = fmt.Fprintf(a.Err, "duplex: %s\n", exit.Message)
	}
	if exit.OOM {
		_, _ = fmt.Fprintln(a.Err, "duplex: killed for want of memory\ngive it more with --memory")
	}
	return cmdline.Status(exit.Status())
}
