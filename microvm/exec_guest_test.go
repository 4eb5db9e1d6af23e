package microvm

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// running starts a machine whose workload sleeps, and returns what acts on it and
// what ends it.
func running(t *testing.T, r Runner, change func(*workload.Spec)) (workload.Controller, func() workload.Exit) {
	t.Helper()
	spec := helperSpec("sleep")
	if change != nil {
		change(&spec)
	}
	signals, ready := make(chan workload.Signal, 1), make(chan workload.Controller, 1)
	type result struct {
		exit workload.Exit
		err  error
	}
	done := make(chan result, 1)
	go func() {
		exit, err := r.Run(t.Context(), spec, workload.Stdio{Signals: signals, Running: func(c workload.Controller) { ready <- c }}, nil)
		done <- result{exit, err}
	}()
	select {
	case c := <-ready:
		return c, func() workload.Exit {
			signals <- workload.Signal(unix.SIGKILL)
			got := <-done
			if got.err != nil {
				t.Error(got.err)
			}
			return got.exit
		}
	case got := <-done:
		t.Fatalf("%v, %v", got.exit, got.err)
		return nil, nil
	}
}

func command(args ...string) workload.Spec {
	return workload.Spec{ID: "-", Argv: args, Env: []string{"PATH=/"}}
}

// Further commands in a running machine have streams, statuses and ids of their own.
func TestGuestExec(t *testing.T) {
	limits := []workload.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: 64, Hard: 128}, {Resource: unix.RLIMIT_CORE, Soft: 4096, Hard: 8192}}
	c, end := running(t, guestOnly(t), func(s *workload.Spec) { s.Rlimits, s.ShmBytes = limits, 8<<20 })
	for name, tt := range map[string]struct {
		spec   workload.Spec
		in     string
		status int
		out    string
		errs   string
	}{
		"status":     {spec: command("/helper", "exit", "42"), status: 42},
		"signal":     {spec: command("/helper", "kill", "9"), status: 137},
		"missing":    {spec: command("nothing-of-this-name"), status: 127},
		"no program": {spec: command("/noexec"), status: 126},
		"both":       {spec: command("/helper", "both"), out: "to stdout", errs: "to stderr"},
		"input":      {spec: command("/helper", "cat"), in: strings.Repeat("in", 500_000), out: strings.Repeat("in", 500_000)},
		"limits": {spec: workload.Spec{ID: "-", Argv: []string{"/helper", "limits"}, Rlimits: limits},
			out: "limits 128 4096 8192\nsleep 128 4096 8192\nshm 8388608\n"},
		"left": {spec: command("/helper", "leave"), out: "left\n"},
		"user": {spec: workload.Spec{ID: "-", Argv: []string{"/helper", "where"}, Env: []string{"X=y"}, Cwd: "/tmp",
			User: workload.User{UID: 7, GID: 8}}, out: "7 8 /tmp y\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			tt.spec.Interactive = tt.in != ""
			exit, err := c.Exec(t.Context(), tt.spec, workload.Stdio{In: strings.NewReader(tt.in), Out: &out, Err: &errs})
			if err != nil || exit.Status() != tt.status || (tt.out != "left\n" && out.String() != tt.out) || errs.String() != tt.errs {
				t.Errorf("%v, %v, %.40q, %q", exit, err, &out, &errs)
			}
			if !strings.HasPrefix(out.String(), tt.out) || (tt.status == 126 || tt.status == 127) != (exit.Message != "") {
				t.Errorf("%.40q, message %q", &out, exit.Message)
			}
		})
	}
	s, err := c.Stats(t.Context())
	if err != nil || s.CPUNs <= 0 || s.Memory < 16<<20 || s.MemoryLimit != DefaultMemory || s.Pids < 2 || s.NetworkIn != 0 || s.BlockRead < 0 || s.BlockWritten < 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if exit := end(); exit.Signal != 9 {
		t.Errorf("the workload: %v", exit)
	}
	if exit, err := c.Exec(t.Context(), command("/helper", "exit", "0"), workload.Stdio{}); !errors.Is(err, workload.ErrEnded) {
		t.Errorf("after the end: %v, %v", exit, err)
	}
	if s, err := c.Stats(t.Context()); !errors.Is(err, workload.ErrEnded) {
		t.Errorf("after the end: %+v, %v", s, err)
	}
}

// waits is a writer that tells when it has got a text.
type waits struct {
	mu   sync.Mutex
	got  bytes.Buffer
	want string
	seen chan struct{}
}

func waitFor(want string) *waits { return &waits{want: want, seen: make(chan struct{})} }

func (w *waits) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := strings.Contains(w.got.String(), w.want)
	w.got.Write(p)
	if !before && strings.Contains(w.got.String(), w.want) {
		close(w.seen)
	}
	return len(p), nil
}

func (w *waits) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got.String()
}

// A terminal changes its size, a signal arrives, a caller that goes takes its
// command along, and so does the workload's end; a limit on processes counts
// them all.
func TestGuestExecLives(t *testing.T) {
	c, end := running(t, guestOnly(t), func(s *workload.Spec) { s.Resources.Pids = 20 })
	sizes := make(chan workload.WinSize, 1)
	out := waitFor("10x20")
	spec := command("/helper", "size")
	spec.TTY, spec.Size = true, workload.WinSize{Rows: 10, Cols: 20}
	go func() { <-out.seen; sizes <- workload.WinSize{Rows: 30, Cols: 100} }()
	if exit, err := c.Exec(t.Context(), spec, workload.Stdio{Out: out, Resize: sizes}); err != nil || exit.Status() != 0 || out.String() != "10x20\r\n30x100\r\n" {
		t.Errorf("size: %v, %v, %q", exit, err, out)
	}
	signals := make(chan workload.Signal, 1)
	out = waitFor("ready")
	go func() { <-out.seen; signals <- workload.Signal(unix.SIGTERM) }()
	if exit, err := c.Exec(t.Context(), command("/helper", "trap"), workload.Stdio{Out: out, Signals: signals}); err != nil || exit.Status() != 0 || out.String() != "ready\n15\n" {
		t.Errorf("signal: %v, %v, %q", exit, err, out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out = waitFor("sleeping")
	go func() { <-out.seen; cancel() }()
	if exit, err := c.Exec(ctx, command("/helper", "sleep"), workload.Stdio{Out: out}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, %v", exit, err)
	}
	var all sync.WaitGroup
	for range 8 { // side by side
		all.Go(func() {
			if exit, err := c.Exec(t.Context(), command("/helper", "exit", "3"), workload.Stdio{}); err != nil || exit.Status() != 3 {
				t.Errorf("side by side: %v, %v", exit, err)
			}
		})
	}
	all.Wait()
	out = waitFor("sleeping")
	all.Go(func() {
		if exit, err := c.Exec(t.Context(), command("/helper", "sleep"), workload.Stdio{Out: out}); err != nil || exit.Status() != 137 {
			t.Errorf("ended with the workload: %v, %v", exit, err)
		}
	})
	<-out.seen
	end()
	all.Wait()
}
