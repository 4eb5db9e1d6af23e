package agentproto

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// guest is the far end of a Session: the test plays the agent.
type guest struct {
	t                                      *testing.T
	control, stdin, stdout, stderr, giving net.Conn
}

// result is what Session.Run returned.
type result struct {
	exit workload.Exit
	err  error
}

// newSession connects a Session to a guest by real sockets, which buffer as the
// transports do.
func newSession(t *testing.T) (*Session, *guest) {
	t.Helper()
	pair := func() (net.Conn, net.Conn) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		var ends [2]net.Conn
		for i, fd := range fds {
			f := os.NewFile(uintptr(fd), "pair")
			if ends[i], err = net.FileConn(f); err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
		}
		t.Cleanup(func() { _ = ends[0].Close(); _ = ends[1].Close() })
		return ends[0], ends[1]
	}
	s, g := new(Session), &guest{t: t}
	s.Control, g.control = pair()
	s.Stdin, g.stdin = pair()
	s.Stdout, g.stdout = pair()
	s.Stderr, g.stderr = pair()
	s.Return, g.giving = pair()
	return s, g
}

func (g *guest) send(m *Message) {
	if err := Write(g.control, m); err != nil {
		g.t.Errorf("guest: %v", err)
	}
}

func (g *guest) expect(want Type) *Message {
	m, err := ReadFromHost(g.control)
	if err != nil || m.Type != want {
		g.t.Errorf("guest: got %+v, %v, want %s", m, err, want)
		return &Message{}
	}
	return m
}

// boot goes through the handshake up to a running workload.
func (g *guest) boot() *Message {
	g.send(&Message{Type: Hello, Version: Version})
	m := g.expect(Run)
	g.send(&Message{Type: Started, PID: 9})
	return m
}

func start(interactive bool) *Start {
	return &Start{Spec: workload.Spec{Argv: []string{"x"}, Interactive: interactive}}
}

func run(ctx context.Context, s *Session, st *Start, stdio workload.Stdio) <-chan result {
	c := make(chan result, 1)
	go func() {
		exit, err := s.Run(ctx, st, stdio)
		c <- result{exit, err}
	}()
	return c
}

func await(t *testing.T, c <-chan result) result {
	t.Helper()
	select {
	case r := <-c:
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("the session does not end")
		return result{}
	}
}

func TestSessionCarriesStreams(t *testing.T) {
	s, g := newSession(t)
	rec := new(workload.Recorder)
	s.Recorder = rec
	var out, errs bytes.Buffer
	in := strings.Repeat("in", 100_000)
	c := run(t.Context(), s, start(true), workload.Stdio{In: strings.NewReader(in), Out: &out, Err: &errs})
	if m := g.boot(); len(m.Start.Spec.Argv) != 1 {
		t.Errorf("start %+v", m.Start)
	}
	got := make([]byte, len(in))
	if _, err := io.ReadFull(g.stdin, got); err != nil || string(got) != in {
		t.Errorf("stdin differs (%v)", err)
	}
	if m := g.expect(StdinEOF); m.Bytes != uint64(len(in)) {
		t.Errorf("stdin_eof after %d bytes, want %d", m.Bytes, len(in))
	}
	// The exit overtakes the output: the host has to wait for it.
	g.send(&Message{Type: Exited, Exit: &Exit{Exit: workload.Exit{Code: 7}, StdoutBytes: 5, StderrBytes: 3}})
	for _, w := range []struct {
		to   net.Conn
		what string
	}{{g.stdout, "he"}, {g.stderr, "err"}, {g.stdout, "llo"}} {
		if _, err := io.WriteString(w.to, w.what); err != nil {
			t.Error(err)
		}
	}
	r := await(t, c)
	if r.err != nil || r.exit != (workload.Exit{Code: 7}) {
		t.Errorf("got %+v, %v", r.exit, r.err)
	}
	if out.String() != "hello" || errs.String() != "err" {
		t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}
	stamps := rec.Stamps()
	for _, p := range []workload.Phase{workload.PhaseWorkload, workload.PhaseFirstByte, workload.PhaseExited} {
		if stamps[p.String()] == 0 {
			t.Errorf("no stamp for %s", p)
		}
	}
}

func TestSessionForwards(t *testing.T) {
	s, g := newSession(t)
	signals, sizes := make(chan workload.Signal, 1), make(chan workload.WinSize, 1)
	c := run(t.Context(), s, start(false), workload.Stdio{Signals: signals, Resize: sizes})
	g.boot()
	if m := g.expect(StdinEOF); m.Bytes != 0 {
		t.Errorf("stdin_eof after %d bytes", m.Bytes)
	}
	sizes <- workload.WinSize{Rows: 3, Cols: 4}
	if m := g.expect(Resize); *m.Size != (workload.WinSize{Rows: 3, Cols: 4}) {
		t.Errorf("size %+v", m.Size)
	}
	signals <- workload.Signal(unix.SIGUSR1)
	if m := g.expect(Signal); m.Signal != int(unix.SIGUSR1) {
		t.Errorf("signal %d", m.Signal)
	}
	g.send(&Message{Type: Exited, Exit: &Exit{Exit: workload.Exit{Signal: int(unix.SIGUSR1)}}})
	if r := await(t, c); r.err != nil || r.exit.Status() != 128+int(unix.SIGUSR1) {
		t.Errorf("got %+v, %v", r.exit, r.err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, unix.EPIPE }

func TestSessionTellsOfClosedOutput(t *testing.T) {
	s, g := newSession(t)
	c := run(t.Context(), s, start(false), workload.Stdio{Out: brokenPipe{}})
	g.boot()
	g.expect(StdinEOF)
	if _, err := io.WriteString(g.stdout, "x"); err != nil {
		t.Fatal(err)
	}
	if m := g.expect(Closed); m.Stream != "stdout" {
		t.Errorf("closed %q", m.Stream)
	}
	g.send(&Message{Type: Exited, Exit: &Exit{Exit: workload.Exit{Signal: 13}, StdoutBytes: 1}})
	if r := await(t, c); r.err != nil || r.exit.Signal != 13 {
		t.Errorf("got %+v, %v", r.exit, r.err)
	}
}

// The ways a run ends other than by an exit of a workload that was started.
func TestSessionEnds(t *testing.T) {
	tests := map[string]struct {
		prepare func(*Session)
		signal  unix.Signal
		guest   func(*guest)
		exit    workload.Exit
		err     string
	}{
		"not found": {guest: func(g *guest) {
			g.send(&Message{Type: Hello, Version: Version})
			g.send(&Message{Type: Exited, Exit: &Exit{Exit: workload.Exit{Code: 127, Message: "no"}}})
		}, exit: workload.Exit{Code: 127, Message: "no"}},
		"failed step": {guest: func(g *guest) {
			g.send(&Message{Type: Hello, Version: Version})
			g.send(&Message{Type: Failed, Step: "mount", Error: "bad"})
		}, err: "guest agent: mount: bad"},
		"other version": {guest: func(g *guest) {
			g.send(&Message{Type: Hello, Version: Version + 1})
		}, err: "expected hello version"},
		"no hello": {guest: func(g *guest) {
			g.send(&Message{Type: Started, PID: 1})
		}, err: "expected hello"},
		"two starts": {guest: func(g *guest) {
			g.boot()
			g.send(&Message{Type: Started, PID: 2})
		}, err: "unexpected message started"},
		"gone while booting": {guest: func(g *guest) { _ = g.control.Close() }, err: ErrGone.Error()},
		"gone while running": {guest: func(g *guest) { g.boot(); _ = g.control.Close() }, err: "machine ended"},
		"garbage": {guest: func(g *guest) {
			_, _ = io.WriteString(g.control, "\x04\x00\x00\x00oops")
		}, err: "decode message"},
		"promises too much": {guest: func(g *guest) {
			g.boot()
			g.send(&Message{Type: Exited, Exit: &Exit{StdoutBytes: 1 << 60}})
			_, _ = io.WriteString(g.stdout, "x")
			_ = g.stdout.Close()
		}, err: "guest stdout ended after 1 of"},
		"signal while booting": {signal: unix.SIGINT, guest: func(*guest) {},
			exit: workload.Exit{Signal: int(unix.SIGINT)}},
		"deadline while booting": {prepare: func(s *Session) { s.Deadline = time.Now() },
			guest: func(*guest) {}, exit: workload.Exit{TimedOut: true}},
		"deadline": {prepare: func(s *Session) { s.Deadline = time.Now().Add(200 * time.Millisecond) },
			guest: func(g *guest) {
				g.boot()
				g.expect(StdinEOF)
				if m := g.expect(Signal); m.Signal != int(unix.SIGKILL) {
					g.t.Errorf("signal %d, want KILL", m.Signal)
				}
				g.send(&Message{Type: Exited, Exit: &Exit{Exit: workload.Exit{Signal: 9}}})
			}, exit: workload.Exit{Signal: 9, TimedOut: true}},
		"deadline of a hung guest": {prepare: func(s *Session) { s.Deadline = time.Now().Add(200 * time.Millisecond) },
			guest: func(g *guest) { g.boot() }, exit: workload.Exit{TimedOut: true}},
		"deadline, and files": {prepare: func(s *Session) {
			s.Deadline = time.Now().Add(200 * time.Millisecond)
			s.Unpack = func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
		}, guest: func(g *guest) {
			g.boot()
			g.expect(StdinEOF)
			g.expect(Signal)
			g.send(&Message{Type: Exited, Exit: &Exit{Exit: workload.Exit{Signal: 9}}})
			_, _ = io.WriteString(g.giving, "file")
			g.send(&Message{Type: Returned, Bytes: 4})
		}, exit: workload.Exit{Signal: 9, TimedOut: true}},
		"no files": {prepare: func(s *Session) { s.Unpack = func(r io.Reader) error { return nil } },
			guest: func(g *guest) {
				g.boot()
				g.send(&Message{Type: Exited, Exit: new(Exit)})
				g.send(&Message{Type: Returned, Error: "disk full"})
			}, err: "disk full"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, g := newSession(t)
			if tt.prepare != nil {
				tt.prepare(s)
			}
			signals := make(chan workload.Signal, 1)
			if tt.signal != 0 {
				signals <- workload.Signal(tt.signal)
			}
			c := run(t.Context(), s, start(false), workload.Stdio{Signals: signals})
			tt.guest(g)
			r := await(t, c)
			if tt.err == "" && (r.err != nil || r.exit != tt.exit) {
				t.Errorf("got %+v, %v, want %+v", r.exit, r.err, tt.exit)
			}
			if tt.err != "" && (r.err == nil || !strings.Contains(r.err.Error(), tt.err)) {
				t.Errorf("got %+v, %v, want an error with %q", r.exit, r.err, tt.err)
			}
		})
	}
}

// The kernel's log comes before the exit, in parts, and is bounded. A host that
// did not ask for it does without.
func TestSessionTakesLog(t *testing.T) {
	part := strings.Repeat("x", MaxFromGuest/2)
	for name, asked := range map[string]bool{"asked": true, "not asked": false} {
		t.Run(name, func(t *testing.T) {
			s, g := newSession(t)
			var got int
			if asked {
				s.OnLog = func(text string) { got += len(text) }
			}
			c := run(t.Context(), s, start(false), workload.Stdio{})
			g.boot()
			for range 2*MaxLog/len(part) + 1 {
				g.send(&Message{Type: Log, Text: part})
			}
			g.send(&Message{Type: Exited, Exit: &Exit{}})
			if r := await(t, c); r.err != nil || r.exit != (workload.Exit{}) {
				t.Errorf("got %+v", r)
			}
			if want := map[bool]int{true: MaxLog}[asked]; got != want {
				t.Errorf("%d bytes of log, want %d", got, want)
			}
		})
	}
}

func TestSessionCanceled(t *testing.T) {
	s, g := newSession(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := run(ctx, s, start(false), workload.Stdio{})
	g.boot()
	cancel()
	if r := await(t, c); !errors.Is(r.err, context.Canceled) {
		t.Errorf("got %+v, %v", r.exit, r.err)
	}
	if _, err := io.ReadAll(g.stdout); err != nil {
		t.Errorf("the streams are not closed: %v", err)
	}
}

func TestSessionUnpacks(t *testing.T) {
	s, g := newSession(t)
	var got []byte
	s.Unpack = func(r io.Reader) (err error) {
		got, err = io.ReadAll(r)
		return err
	}
	c := run(t.Context(), s, start(false), workload.Stdio{})
	g.boot()
	g.send(&Message{Type: Exited, Exit: &Exit{Exit: workload.Exit{Code: 1}}})
	want := bytes.Repeat([]byte("file"), 100_000)
	if _, err := g.giving.Write(want); err != nil {
		t.Fatal(err)
	}
	g.send(&Message{Type: Returned, Bytes: uint64(len(want))})
	if r := await(t, c); r.err != nil || r.exit.Code != 1 || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v, %d bytes", r.exit, r.err, len(got))
	}
}
