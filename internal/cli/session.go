package cli

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

// session connects the caller's terminal, streams and signals to a workload for
// the time of one run.
type session struct {
	stdio  workload.Stdio
	ctx    context.Context
	cancel context.CancelFunc
	send   chan workload.Signal // what stdio.Signals reads
	undo   []func()
	once   sync.Once
}

// forwarded are the signals a workload gets when duplex gets them.
var forwarded = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT,
}

// newSession prepares the streams for s. The caller must call close. A signal
// that would end duplex, when it arrives before the workload is running or for
// the second time, cancels the session's context; others are forwarded.
func (a *app) newSession(parent context.Context, s *workload.Spec, rec *workload.Recorder) (*session, error) {
	ctx, cancel := context.WithCancel(parent)
	se := &session{ctx: ctx, cancel: cancel, stdio: workload.Stdio{Out: a.out, Err: a.err}}
	if s.Interactive {
		se.stdio.In = a.in
	}
	if s.TTY && !a.isDetached() {
		if err := se.terminal(a, s); err != nil {
			se.close()
			return nil, err
		}
	}
	if s.TTY && a.isDetached() {
		s.Size = workload.WinSize{Rows: 24, Cols: 80} // until somebody attaches
	}
	se.signals(a, rec)
	if err := a.tracked.begin(se, s.Interactive); err != nil {
		se.close()
		return nil, err
	}
	return se, nil
}

// isDetached says whether the run has no terminal of its caller's.
func (a *app) isDetached() bool { return a.tracked != nil && a.tracked.record.Detached }

func (se *session) terminal(a *app, s *workload.Spec) error {
	fd := int(a.in.Fd())
	if s.Interactive && !term.IsTerminal(fd) {
		return &workload.Error{Op: a.cmd.name, Err: errors.New("the input device is not a TTY"), Remedy: "leave out -t, or start duplex from a terminal"}
	}
	sizeFD := fd
	if f, ok := a.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		sizeFD = int(f.Fd())
	}
	s.Size = winSize(sizeFD)
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
			case <-se.ctx.Done():
				return
			}
			select {
			case sizes <- winSize(sizeFD):
			case <-se.ctx.Done():
				return
			}
		}
	}()
	se.stdio.Resize = sizes
	se.undo = append(se.undo, func() { signal.Stop(winch) })
	return nil
}

func (se *session) signals(a *app, rec *workload.Recorder) {
	in := make(chan os.Signal, 16)
	signal.Notify(in, forwarded...)
	a.stopSignals()
	out := make(chan workload.Signal, 16)
	se.stdio.Signals, se.send = out, out
	se.undo = append(se.undo, func() { signal.Stop(in) })
	go func() {
		stops := 0
		for {
			var sig syscall.Signal
			select {
			case s := <-in:
				sig, _ = s.(syscall.Signal)
			case <-se.ctx.Done():
				return
			}
			if sig == syscall.SIGINT || sig == syscall.SIGTERM || sig == syscall.SIGHUP {
				stops++
				if stops > 1 || rec.Stamps()[workload.PhaseWorkload.String()] == 0 {
					a.signal.Store(int32(sig))
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
func (se *session) endAtOutput() {
	se.stdio.Out = &firstWrite{to: se.stdio.Out, then: func() {
		select {
		case se.send <- workload.Signal(syscall.SIGKILL):
		case <-se.ctx.Done():
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

// close restores the terminal and the signals; it is idempotent.
func (se *session) close() {
	se.once.Do(func() {
		se.cancel()
		for i := len(se.undo) - 1; i >= 0; i-- {
			se.undo[i]()
		}
	})
}

func winSize(fd int) workload.WinSize {
	ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return workload.WinSize{Rows: 24, Cols: 80}
	}
	return workload.WinSize{Rows: ws.Row, Cols: ws.Col}
}
