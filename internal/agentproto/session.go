package agentproto

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

const (
	// killGrace is how long a guest gets to report the end of a workload that
	// was killed for its time limit.
	killGrace = 5 * time.Second
	// drainGrace is how long promised output may stand still after the exit.
	drainGrace = 30 * time.Second
	// stillLimit is how long a machine may leave pulses unanswered. A busy host
	// makes an emulated machine slow, but not this slow.
	stillLimit = 2 * time.Minute
)

// Session is the host's end of one run. It is used once.
type Session struct {
	// Control, Stdin, Stdout and Stderr are connected to the agent. Run closes
	// them.
	Control               io.ReadWriteCloser
	Stdin, Stdout, Stderr io.ReadWriteCloser
	// Return is the tar stream of returned files, and Unpack what reads it; both
	// nil unless Start.Lab asks for files. Unpack must read to the end of the
	// archive.
	Return io.ReadCloser
	Unpack func(io.Reader) error
	// Deadline ends the workload with Exit.TimedOut; zero means never.
	Deadline time.Time
	// Pulse is how often the agent is told to interrupt every CPU while the
	// workload runs; 0 means never. It is for emulated machines that may lose an
	// interrupt (see package lab): the next one makes up for it. A machine that
	// does not answer for stillLimit is given up with ErrStill.
	Pulse time.Duration
	// OnStarted is called when the workload runs; may be nil.
	OnStarted func()
	// OnHello is called when the agent says hello; may be nil.
	OnHello func()
	// OnLog gets the kernel's log in parts, at most MaxLog bytes, when it was asked
	// for (ReportKey); may be nil.
	OnLog func(text string)
	// Recorder gets PhaseWorkload (unless a mark stamped it), PhaseFirstByte and
	// PhaseExited; may be nil.
	Recorder *workload.Recorder

	counting chan struct{} // has room for the one who asks for a count
	counts   chan int64    // answers
	send     sync.Mutex
	alive    atomic.Int64 // when the agent last answered a pulse, Unix nanoseconds
	messages chan *Message
	failed   chan error // why the control stream cannot be used
	timedOut bool
	early    []workload.Signal // came before the workload ran
}

// Run starts the workload and stays with it to its end. An Exit with a nil error
// is the workload's own; cancelling ctx returns ctx.Err() at once, and the
// caller ends the machine, which takes the workload with it.
//
// A goroutine that reads stdio.In may outlive Run until that read returns.
func (s *Session) Run(ctx context.Context, start *Start, stdio workload.Stdio) (workload.Exit, error) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, s.close)
	defer func() { cancel(); stop(); s.close() }()
	s.messages, s.failed = make(chan *Message), make(chan error, 3)
	s.counting, s.counts = make(chan struct{}, 1), make(chan int64, 1)
	go s.readControl(ctx)

	hello, exit, err := s.wait(ctx, stdio.Signals, true)
	switch {
	case err != nil || exit != nil:
		return s.end(exit), err
	case hello.Type != Hello || hello.Version != Version:
		return workload.Exit{}, fmt.Errorf("guest agent: expected hello version %d, got %s version %d", Version, hello.Type, hello.Version)
	}
	if s.OnHello != nil {
		s.OnHello()
	}
	go func() { // a guest that does not read must not hold up the deadline
		now := *start
		now.TimeNs = time.Now().UnixNano() // and not that of before the boot
		if err := s.write(&Message{Type: Run, Start: &now}); err != nil {
			s.failed <- err
			return
		}
		s.feed(ctx, start.Spec.Interactive, stdio)
	}()
	out := s.drain(ctx, Stdout, s.Stdout, stdio.Out)
	errs := s.drain(ctx, Stderr, s.Stderr, stdio.Err)
	unpacked := s.unpack()

	got, exit, err := s.run(ctx, stdio.Signals)
	if err != nil || exit != nil {
		return s.end(exit), err
	}
	left, free := s.bound(ctx)
	defer free()
	err = errors.Join(out.await(left, got.Exit.StdoutBytes), errs.await(left, got.Exit.StderrBytes))
	if err == nil {
		s.Recorder.Stamp(workload.PhaseExited)
		err = s.finish(left, unpacked)
	}
	if err != nil && left.Err() != nil && ctx.Err() == nil {
		return workload.Exit{TimedOut: true}, nil
	}
	return s.end(&got.Exit.Exit), err
}

// bound is ctx for the time after the workload's exit: a guest that has reported
// it, truly or not, may send what it promised for some time after the deadline,
// but not for ever.
func (s *Session) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.Deadline.IsZero() {
		return ctx, func() {}
	}
	end := s.Deadline
	if now := time.Now(); now.After(end) {
		end = now
	}
	return context.WithDeadline(ctx, end.Add(drainGrace))
}

// run passes the messages between start and exit.
func (s *Session) run(ctx context.Context, signals <-chan workload.Signal) (*Message, *workload.Exit, error) {
	m, exit, err := s.wait(ctx, signals, true)
	if err == nil && exit == nil && m.Type == Started {
		s.Recorder.Stamp(workload.PhaseWorkload) // where there is a mark, it came first
		go s.forward(ctx, s.early, signals)
		if s.OnStarted != nil {
			s.OnStarted()
		}
		if s.Pulse > 0 {
			go s.pulse(ctx)
		}
		m, exit, err = s.wait(ctx, nil, false)
	}
	switch {
	case err != nil || exit != nil:
		return nil, exit, err
	case m.Type == Failed:
		return nil, nil, &workload.Error{Op: "guest agent: " + m.Step, Err: errors.New(m.Error)}
	case m.Type != Exited:
		return nil, nil, fmt.Errorf("guest agent: unexpected message %s", m.Type)
	}
	return m, nil, nil
}

// wait returns the next message, or an Exit when the deadline or (while booting)
// a signal ends the run before one comes.
func (s *Session) wait(ctx context.Context, signals <-chan workload.Signal, booting bool) (*Message, *workload.Exit, error) {
	var limit <-chan time.Time
	if !s.Deadline.IsZero() {
		t := time.NewTimer(time.Until(s.Deadline))
		defer t.Stop()
		limit = t.C
	}
	for {
		select {
		case m := <-s.messages:
			return m, nil, nil
		case err := <-s.failed:
			return nil, nil, s.why(ctx, err)
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case sig, ok := <-signals:
			switch {
			case !ok:
				signals = nil
			case fatal(sig):
				return nil, &workload.Exit{Signal: int(sig)}, nil
			default:
				s.early = append(s.early, sig)
			}
		case <-limit:
			if s.timedOut || booting {
				return nil, &workload.Exit{TimedOut: true}, nil
			}
			s.timedOut = true
			go func() { _ = s.write(&Message{Type: Signal, Signal: int(unix.SIGKILL)}) }()
			t := time.NewTimer(killGrace)
			defer t.Stop()
			limit = t.C
		}
	}
}

// fatal says whether sig, which came before there was a workload to forward it
// to, ends the run.
func fatal(sig workload.Signal) bool {
	switch unix.Signal(sig) {
	case unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT:
		return true
	}
	return false
}

func (s *Session) end(exit *workload.Exit) workload.Exit {
	if exit == nil {
		return workload.Exit{}
	}
	e := *exit
	e.TimedOut = e.TimedOut || s.timedOut
	return e
}

// finish waits for the returned files: as long as it takes, if they move.
func (s *Session) finish(ctx context.Context, unpacked *unpacking) error {
	if unpacked == nil {
		return nil
	}
	fail := func(err error) error { return &workload.Error{Op: "return files from the guest", Err: err} }
	for {
		still := time.NewTimer(drainGrace)
		select {
		case m := <-s.messages:
			still.Stop()
			switch {
			case m.Type != Returned:
				return fmt.Errorf("guest agent: unexpected message %s", m.Type)
			case m.Error != "":
				return fail(errors.New(m.Error))
			}
			return unpacked.finish(ctx, m.Bytes)
		case <-unpacked.drained.more:
			still.Stop()
		case err := <-s.failed:
			still.Stop()
			return fail(s.why(ctx, err))
		case <-ctx.Done():
			still.Stop()
			return ctx.Err()
		case <-still.C:
			return fail(errors.New("the guest stands still"))
		}
	}
}

// ErrStill reports a machine that runs but does nothing.
var ErrStill = errors.New("the machine stands still")

// pulse sends Pulse messages until ctx ends or the guest is gone or stands still.
func (s *Session) pulse(ctx context.Context) {
	s.alive.Store(time.Now().UnixNano())
	beat := make(chan struct{}, 1)
	defer close(beat)
	go func() { // a guest that does not read blocks this, but not the clock
		for range beat {
			if s.write(&Message{Type: Pulse}) != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(s.Pulse)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if time.Since(time.Unix(0, s.alive.Load())) > stillLimit {
			s.failed <- ErrStill
			return
		}
		select {
		case beat <- struct{}{}:
		default: // one is on its way
		}
	}
}

// MaxLog bounds the bytes of a kernel's log that a Session takes.
const MaxLog = 8 << 20

func (s *Session) readControl(ctx context.Context) {
	room := MaxLog
	for {
		m, err := ReadFromGuest(s.Control)
		if err != nil {
			s.failed <- err
			return
		}
		if m.Type == Pulse {
			s.alive.Store(time.Now().UnixNano())
			continue
		}
		if m.Type == Count {
			select {
			case s.counts <- int64(m.Pids):
			default: // nobody has asked
			}
			continue
		}
		if m.Type == Log {
			if n := min(room, len(m.Text)); s.OnLog != nil && n > 0 {
				room -= n
				s.OnLog(m.Text[:n])
			}
			continue
		}
		select {
		case s.messages <- m:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Session) write(m *Message) error {
	s.send.Lock()
	defer s.send.Unlock()
	return Write(s.Control, m)
}

// Count asks the agent how many processes and threads there are beside its own and
// the kernel's. Precondition: OnStarted was called.
func (s *Session) Count(ctx context.Context) (int64, error) {
	select {
	case s.counting <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { <-s.counting }()
	select {
	case <-s.counts: // the answer to somebody who waited no longer
	default:
	}
	if err := s.write(&Message{Type: Count}); err != nil {
		return 0, s.why(ctx, err)
	}
	select {
	case n := <-s.counts:
		return n, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// why names the reason of a failed read or write.
func (s *Session) why(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, gone := range []error{io.EOF, io.ErrUnexpectedEOF, unix.ECONNRESET, unix.EPIPE} {
		if errors.Is(err, gone) {
			return ErrGone
		}
	}
	return fmt.Errorf("guest agent: %w", err)
}

// ErrGone reports that the machine ended before it said how the workload did:
// a kernel panic, a triple fault, a poweroff by the workload.
var ErrGone = errors.New("the machine ended before the workload did")

func (s *Session) close() {
	for _, c := range []io.Closer{s.Control, s.Stdin, s.Stdout, s.Stderr, s.Return} {
		if c != nil {
			_ = c.Close()
		}
	}
}
