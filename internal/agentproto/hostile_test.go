package agentproto

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/duplex-run/duplex/internal/workload"
)

// A guest that answers pulses which it never read: they do not pile up.
func TestPulsesDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Session
		var control, stdin net.Conn
		s.Control, control = net.Pipe() // buffers nothing
		s.Stdin, stdin = net.Pipe()
		s.Stdout, s.Stderr = stream{bytes.NewReader(nil)}, stream{bytes.NewReader(nil)}
		s.Pulse = time.Second
		defer stdin.Close()
		g := &guest{t: t, control: control}
		ctx, cancel := context.WithCancel(t.Context())
		c := run(ctx, &s, start(false), workload.Stdio{})
		g.boot()
		g.expect(StdinEOF)
		before := runtime.NumGoroutine()
		for range 1000 {
			g.send(&Message{Type: Pulse})
			time.Sleep(time.Second) // of the bubble's clock
		}
		if now := runtime.NumGoroutine(); now > before+100 { // the runtime has some of its own
			t.Errorf("%d goroutines before 1000 pulses, %d after", before, now)
		}
		cancel()
		if r := <-c; !errors.Is(r.err, context.Canceled) {
			t.Errorf("got %+v", r)
		}
	})
}

// stream is a guest that says what it says and is gone.
type stream struct{ io.Reader }

func (stream) Write(p []byte) (int, error) { return len(p), nil }
func (stream) Close() error                { return nil }

// sink is a writer that may be looked at while a session still writes.
type sink struct {
	mu sync.Mutex
	b  []byte
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b = append(s.b, p...)
	return len(p), nil
}

// begins says whether data begins with what was written.
func (s *sink) begins(data []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.HasPrefix(data, s.b)
}

// Whatever a guest sends, its session ends, and nothing but what it sent comes
// out.
func FuzzSession(f *testing.F) {
	script := func(messages ...*Message) []byte {
		var b bytes.Buffer
		for _, m := range messages {
			if err := Write(&b, m); err != nil {
				f.Fatal(err)
			}
		}
		return b.Bytes()
	}
	hello, started := &Message{Type: Hello, Version: Version}, &Message{Type: Started, PID: 1}
	exited := &Message{Type: Exited, Exit: &Exit{StdoutBytes: 3}}
	whole := script(hello, started, exited, &Message{Type: Returned, Bytes: 2})
	f.Add(whole, []byte("out"))
	f.Add(whole[:40], []byte{})
	f.Add(script(hello, &Message{Type: Pulse}, started, &Message{Type: Pulse}, exited, exited), []byte("out"))
	f.Add(script(hello, &Message{Type: Failed, Step: "mount", Error: "no"}), []byte{})
	f.Add(script(hello, exited, &Message{Type: Returned, Error: "no"}), []byte("out and more"))
	f.Add(script(hello, started, &Message{Type: Exited, Exit: &Exit{StdoutBytes: 1<<64 - 1, StderrBytes: 1}},
		&Message{Type: Returned, Bytes: 1 << 63}), []byte("o"))
	f.Fuzz(func(t *testing.T, control, data []byte) {
		var out, errs, files sink
		s := &Session{Control: stream{bytes.NewReader(control)}, Stdin: stream{bytes.NewReader(nil)},
			Stdout: stream{bytes.NewReader(data)}, Stderr: stream{bytes.NewReader(data)},
			Return: stream{bytes.NewReader(data)}, Unpack: func(r io.Reader) error {
				_, err := io.Copy(&files, r)
				return err
			}}
		exit, err := s.Run(t.Context(), start(false), workload.Stdio{Out: &out, Err: &errs})
		if err == nil && (exit.Code < 0 || exit.Code > 255 || exit.Signal < 0 || exit.Signal > 64) {
			t.Errorf("accepted %+v", exit)
		}
		for i, w := range []*sink{&out, &errs, &files} {
			if !w.begins(data) {
				t.Errorf("stream %d differs from what was sent", i)
			}
		}
	})
}
