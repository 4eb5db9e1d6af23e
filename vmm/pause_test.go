package vmm

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// marking is a guest that writes marks for ever.
var marking = program{}.out(portMarks, 1).then(0xeb, 0xf7) // jmp to its start

// start runs v until the test ends, and returns how its run ends.
func start(t *testing.T, v *VM) (stop func() Exit) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan Exit, 1)
	go func() {
		exit, err := v.Run(ctx)
		if err != nil {
			t.Error(err)
		}
		done <- exit
	}()
	t.Cleanup(cancel)
	return func() Exit { cancel(); return <-done }
}

func TestPause(t *testing.T) {
	var marks atomic.Int64
	seen := make(chan struct{}, 1)
	v := newTiny(t, marking, func(c *Config) {
		c.OnMark = func(byte, int64) {
			marks.Add(1)
			select {
			case seen <- struct{}{}:
			default:
			}
		}
	})
	if err := v.Pause(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Pause before Run: %v", err)
	}
	stop := start(t, v)
	for range 50 {
		<-seen
		if err := v.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := v.Pause(t.Context()); err != nil { // twice: two resumes
			t.Fatal(err)
		}
		select {
		case <-seen:
		default:
		}
		before := marks.Load()
		v.Resume()
		if v.gate.running != 0 || marks.Load() != before {
			t.Fatalf("%d vCPUs run while paused, %d marks, %d before", v.gate.running, marks.Load(), before)
		}
		v.Resume()
	}
	if err := v.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exit := stop(); exit.Reason != Canceled {
		t.Errorf("a paused VM ended by %v", exit)
	}
	if err := errors.Join(v.Pause(t.Context()), v.PowerButton()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after the end: %v", err)
	}
}

// A vCPU that waits for the console's writer does not come: Pause gives up with
// its context, and the VM goes on.
func TestPauseGivesUp(t *testing.T) {
	blocked := &blockingWriter{release: make(chan struct{})}
	v := newTiny(t, program{}.out(portSerial, 'x', '\n').then(0xee, 0xeb, 0xfd), func(c *Config) { c.Console = blocked })
	stop := start(t, v)
	for full := false; !full; {
		v.console.mu.Lock()
		full = len(v.console.pending) == consoleRoom
		v.console.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := v.Pause(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Pause: %v", err)
	}
	if v.gate.holds != 0 {
		t.Error("the gate is still held")
	}
	close(blocked.release)
	stop()
}

// A vCPU that spins is held back once it has used its share of a period, and let
// go with a later one, again and again. When, is the host's scheduler's to say:
// nothing here is timed.
func TestCPULimit(t *testing.T) {
	v := newTiny(t, program{}.spin(), func(c *Config) { c.CPULimit = 0.2 })
	stop := start(t, v)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	await := func(what string, is func() bool) {
		for !is() {
			select {
			case <-tick.C:
			case <-t.Context().Done():
				t.Fatalf("the vCPU was never %s", what)
			}
		}
	}
	for range 3 {
		await("held", v.gate.held)
		used := v.Stats().CPUTime
		if used < 10*time.Millisecond {
			t.Errorf("held after %v of processor time", used)
		}
		await("let go", func() bool { return !v.gate.held() && v.Stats().CPUTime > used })
	}
	stop()
}

// EnterVCPU runs on the vCPU's thread, and its error ends the run.
func TestEnterVCPU(t *testing.T) {
	tids := map[int]bool{}
	refused := errors.New("refused")
	v := newTiny(t, program{}.powerOff(), func(c *Config) {
		c.EnterVCPU = func() error { tids[unix.Gettid()] = true; return refused }
	})
	if _, err := v.Run(t.Context()); !errors.Is(err, refused) {
		t.Errorf("Run: %v", err)
	}
	if len(tids) != 1 {
		t.Errorf("called on %d threads", len(tids))
	}
}
