package runcli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/duplex-run/duplex/internal/workload"
)

// Session connects the caller's terminal, streams and signals to a workload for
// the time of one run.
type Session struct {
	Stdio  workload.Stdio
	Ctx    context.Context
	cancel context.CancelFunc
	send   chan workload.Signal // what Stdio.Signals reads
	undo   []func()
	once   sync.Once
}

// Forwarded are the signals a workload gets when duplex gets them.
var Forwarded = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT,
}

// NewSession prepares the streams for s. The caller must call close. A signal
// that would end duplex, when it arrives before the workload is running or for
// the second time, cancels the session's context; others are Forwarded.
func (a *App) NewSession(parent context.Context, s *workload.Spec, rec *workload.Recorder) (*Session, error) {
	ctx, cancel := context.WithCancel(parent)
	se := &Session{Ctx: ctx, cancel: cancel, Stdio: workload.Stdio{Out: a.Out, Err: a.Err}}
	if s.Interactive {
		se.Stdio.In = a.In
	}
	if s.TTY && !a.isDetached() {
		if err := se.terminal(a, s); err != nil {
			se.Close()
			return nil, err
		}
	}
	if s.TTY && a.isDetached() {
		s.Size = workload.WinSize{Rows: 24, Cols: 80} // until somebody attaches
	}
	se.signals(a, rec)
	if err := a.Tracked.begin(se, s.Interactive); err != nil {
		se.Close()
		return nil, err
	}
	return se, nil
}

// isDetached says whether the run has no terminal of its caller's.
func (a *App) isDetached() bool { return a.Tracked != nil && a.Tracked.record.Detached }

func (se *Session) terminal(a *App, s *workload.Spec) error {
	fd := int(a.In.Fd())
	if s.Interactive && !term.IsTerminal(fd) {
		return &workload.Error{Op: a.Cmd.Name, Err: errors.New("the input device is not a TTY"), Remedy: "leave out -t, or start duplex from a terminal"}
	}
	sizeFD := fd
	if f, ok := a.Out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		sizeFD = int(f.Fd())
	}
	s.Size = WinSize(sizeFD)
	if s.Interactive {
		old, err := term.MakeRaw(fd)
		if err != nil {
			return &workload.Error{Op: "set the terminal to raw mode", Err: err}
		}
		se.undo = append(se.undo, func() { _ = term.Restore(fd, old) })
	}
	winch := make(chan os.Signal, 1)
	signal.Notify(winch, syscall.SIGWINCH)
	sizes := make(chan workload.WinSize, 1)
	go func() {
		for {
			select {
			case <-winch:
			case <-se.Ctx.Done():
				return
			}
			select {
			case sizes <- WinSize(sizeFD):
			case <-se.Ctx.Done():
				return
			}
		}
	}()
	se.Stdio.Resize = sizes
	se.undo = append(se.undo, func() { signal.Stop(winch) })
	return nil
}

func (se *Session) signals(a *App, rec *workload.Recorder) {
	in := make(chan os.Signal, 16)
	signal.Notify(in, Forwarded...)
	a.StopSignals()
	out := make(chan workload.Signal, 16)
	se.Stdio.Signals, se.send = out, out
	se.undo = append(se.undo, func() { signal.Stop(in) })
	go func() {
		stops := 0
		for {
			var sig syscall.Signal
			select {
			case s := <-in:
				sig, _ = s.(syscall.Signal)
			case <-se.Ctx.Done():
				return
			}
			if sig == syscall.SIGINT || sig == syscall.SIGTERM || sig == syscall.SIGHUP {
				stops++
				if stops > 1 || rec.Stamps()[workload.PhaseWorkload.String()] == 0 {
					a.Signal.Store(int32(sig))
					se.cancel()
					return
				}
			}
			select {
			case out <- workload.Signal(sig):
			default: // a workload that takes no signals loses the seventeenth
			}
		}
	}()
}

// endAtOutput kills the workload once it has written something to its stdout.
func (se *Session) endAtOutput() {
	se.Stdio.Out = &firstWrite{to: se.Stdio.Out, then: func() {
		select {
		case se.send <- workload.Signal(syscall.SIGKILL):
		case <-se.Ctx.Done():
		}
	}}
}

// firstWrite calls then after its first write, on a goroutine of its own.
type firstWrite struct {
	to   io.Writer
	once sync.Once
	then func()
}

func (w *firstWrite) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	w.once.Do(func() { go w.then() })
	return n, err
}

// Close restores the terminal and the signals; it is idempotent.
func (se *Session) Close() {
	se.once.Do(func() {
		se.cancel()
		for i := len(se.undo) - 1; i >= 0; i-- {
			se.undo[i]()
		}
	})
}

func WinSize(fd int) workload.WinSize {
	ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return workload.WinSize{Rows: 24, Cols: 80}
	}
	return workload.WinSize{Rows: ws.Row, Cols: ws.Col}
}
