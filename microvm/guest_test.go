package microvm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// The whole table, the same for both isolations, is internal/e2e's.
func TestGuestStatuses(t *testing.T) {
	r := guestOnly(t)
	for _, c := range []struct {
		name   string
		argv   []string
		status int
	}{
		{"42", []string{"/helper", "exit", "42"}, 42},
		{"KILL", []string{"/helper", "kill", "9"}, 137},
		{"missing", []string{"nothing-of-this-name"}, 127},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			spec := helperSpec()
			spec.Argv = c.argv
			exit, err := r.Run(t.Context(), spec, workload.Stdio{}, nil)
			if err != nil || exit.Status() != c.status {
				t.Errorf("%v (status %d), %v; want status %d", exit, exit.Status(), err, c.status)
			}
			if (c.status == 126 || c.status == 127) != (exit.Message != "") {
				t.Errorf("message %q", exit.Message)
			}
		})
	}
}

// Phases come in order, and what the run cost is known.
func TestGuestPhases(t *testing.T) {
	r := guestOnly(t)
	rec := new(workload.Recorder)
	var out, errs bytes.Buffer
	exit, err := r.Run(t.Context(), helperSpec("both"), workload.Stdio{Out: &out, Err: &errs}, rec)
	if err != nil || exit.Status() != 0 || out.String() != "to stdout" || errs.String() != "to stderr" {
		t.Fatalf("%v, %v, %q, %q", exit, err, &out, &errs)
	}
	stamps, last := rec.Stamps(), int64(0)
	for p := workload.PhaseCreated; p < workload.NumPhases; p++ {
		ns := stamps[p.String()]
		if ns <= last {
			t.Errorf("%v at %d, the phase before it at %d", p, ns, last)
		}
		t.Logf("%-11v %+9.1f ms", p, float64(ns-stamps["created"])/1e6)
		last = ns
	}
	u := rec.Usage()
	t.Logf("usage %+v", u)
	if u.CPUNs <= 0 || u.Exits["io"] == 0 || u.Memory["guest_rss"] < 16<<20 || u.Memory["vmm_private"] < 1<<20 {
		t.Errorf("implausible usage %+v", u)
	}
	if u.Memory["vmm_private"] > 64<<20 {
		t.Errorf("the monitor takes %d bytes beside the guest", u.Memory["vmm_private"])
	}
}

// The least memory that is accepted is enough.
func TestGuestLeastMemory(t *testing.T) {
	r := guestOnly(t)
	spec := helperSpec("exit", "7")
	spec.Resources.MemoryBytes = MinMemory
	exit, err := r.Run(t.Context(), spec, workload.Stdio{}, nil)
	if err != nil || exit.Status() != 7 {
		t.Errorf("%v, %v", exit, err)
	}
}

// randomBytes is a reader of n bytes, and the hash of what was read.
func randomBytes(n int64) (io.Reader, hash.Hash) {
	sum := sha256.New()
	return io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{3}), n), sum), sum
}

func TestGuestTenMegabytes(t *testing.T) {
	r := guestOnly(t)
	in, want := randomBytes(10_000_000)
	got := sha256.New()
	spec := helperSpec("cat")
	spec.Interactive = true
	exit, err := r.Run(t.Context(), spec, workload.Stdio{In: in, Out: got}, nil)
	if err != nil || exit.Status() != 0 {
		t.Fatalf("%v, %v", exit, err)
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Error("the bytes came back changed")
	}
}

// gate is a writer that blocks until it is opened.
type gate struct {
	began chan struct{} // closed at the first Write
	open  chan struct{}
	once  sync.Once
	n     int64
}

func (g *gate) Write(p []byte) (int, error) {
	g.once.Do(func() { close(g.began) })
	<-g.open
	g.n += int64(len(p))
	return len(p), nil
}

// A reader that stops stops the workload, and nothing is lost.
func TestGuestSlowReader(t *testing.T) {
	r := guestOnly(t)
	g := &gate{began: make(chan struct{}), open: make(chan struct{})}
	time.AfterFunc(time.Minute, func() { // a machine that says nothing fails below
		select {
		case <-g.began:
		default:
			close(g.began)
		}
	})
	go func() {
		<-g.began
		time.Sleep(35 * time.Second) // longer than the session waits for a silent guest
		close(g.open)
	}()
	const size = 8 << 20
	exit, err := r.Run(t.Context(), helperSpec("spam", "8388608"), workload.Stdio{Out: g}, nil)
	if err != nil || exit.Status() != 0 || g.n != size {
		t.Errorf("%v, %v: %d bytes, want %d", exit, err, g.n, size)
	}
}

// closedPipe takes one write.
type closedPipe struct{ n int }

func (c *closedPipe) Write(p []byte) (int, error) {
	if c.n++; c.n > 1 {
		return 0, unix.EPIPE
	}
	return len(p), nil
}

func TestGuestClosedPipe(t *testing.T) {
	r := guestOnly(t)
	exit, err := r.Run(t.Context(), helperSpec("spam", "1000000000"), workload.Stdio{Out: &closedPipe{}}, nil)
	if err != nil || exit.Signal != int(unix.SIGPIPE) {
		t.Errorf("%v, %v; want SIGPIPE", exit, err)
	}
}

// expecting calls f when the output holds text.
type expecting struct {
	text string
	f    func()
	buf  bytes.Buffer
	once sync.Once
}

func (e *expecting) Write(p []byte) (int, error) {
	e.buf.Write(p)
	if strings.Contains(e.buf.String(), e.text) {
		e.once.Do(e.f)
	}
	return len(p), nil
}

func TestGuestSignal(t *testing.T) {
	r := guestOnly(t)
	signals := make(chan workload.Signal, 1)
	out := &expecting{text: "ready\n", f: func() { signals <- workload.Signal(unix.SIGUSR1) }}
	exit, err := r.Run(t.Context(), helperSpec("trap"), workload.Stdio{Out: out, Signals: signals}, nil)
	if err != nil || exit.Status() != 0 || out.buf.String() != "ready\n10\n" {
		t.Errorf("%v, %v, %q", exit, err, &out.buf)
	}
}

func TestGuestTerminal(t *testing.T) {
	r := guestOnly(t)
	sizes := make(chan workload.WinSize, 1)
	out := &expecting{text: "24x80\r\n", f: func() { sizes <- workload.WinSize{Rows: 50, Cols: 100} }}
	spec := helperSpec("size")
	spec.TTY, spec.Size = true, workload.WinSize{Rows: 24, Cols: 80}
	exit, err := r.Run(t.Context(), spec, workload.Stdio{Out: out, Resize: sizes}, nil)
	if err != nil || exit.Status() != 0 || !strings.HasSuffix(out.buf.String(), "50x100\r\n") {
		t.Errorf("%v, %v, %q", exit, err, &out.buf)
	}
}

// Whatever a guest does to its machine ends the run with a reason.
func TestGuestEnds(t *testing.T) {
	r := guestOnly(t)
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"panic", []string{"sysrq", "c"}, []string{"Kernel panic - not syncing: sysrq triggered crash", "console ended with"}},
		{"power off", []string{"reboot", "0x4321fedc"}, []string{"powered off before its workload ended"}},
		{"restart", []string{"reboot", "0x01234567"}, []string{"restarted before its workload ended"}},
		{"agent killed", []string{"sysrq", "i"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			exit, err := r.Run(t.Context(), helperSpec(c.args...), workload.Stdio{}, nil)
			if c.want == nil { // killing all processes but init is the workload's end
				if err != nil || exit.Signal != int(unix.SIGKILL) {
					t.Errorf("%v, %v", exit, err)
				}
				return
			}
			var own *workload.Error
			if !errors.As(err, &own) {
				t.Fatalf("%v, %v; want a *workload.Error", exit, err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v\ndoes not say %q", err, w)
				}
			}
		})
	}
}

// hanging is a workload that stops its guest's only CPU for good. after is called
// a while after it was told to.
func hanging(after func()) (workload.Spec, workload.Stdio) {
	r, w := io.Pipe()
	spec := helperSpec("hang")
	spec.Interactive = true
	return spec, workload.Stdio{In: r, Out: &expecting{text: "about to hang\n", f: func() {
		go func() {
			_, _ = w.Write([]byte{'\n'})
			time.AfterFunc(2*time.Second, after)
			_ = w.Close()
		}()
	}}}
}

func TestGuestHangs(t *testing.T) {
	r := guestOnly(t)
	t.Run("time limit", func(t *testing.T) {
		t.Parallel()
		spec, stdio := hanging(func() {})
		spec.Timeout = time.Minute
		started := time.Now()
		exit, err := r.Run(t.Context(), spec, stdio, nil)
		if err != nil || exit.Status() != workload.StatusTimeout {
			t.Errorf("%v, %v", exit, err)
		}
		if d := time.Since(started); d > spec.Timeout+15*time.Second {
			t.Errorf("ended after %v", d)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		spec, stdio := hanging(cancel)
		exit, err := r.Run(ctx, spec, stdio, nil)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v", exit, err)
		}
	})
	t.Run("boot", func(t *testing.T) {
		t.Parallel()
		late := r
		late.Cmdline, late.BootTimeout = "rdinit=/nothing root=/dev/nothing rootwait panic=0", 15*time.Second
		exit, err := late.Run(t.Context(), helperSpec("exit", "0"), workload.Stdio{}, nil)
		if err == nil || !strings.Contains(err.Error(), "did not come up within 15s") {
			t.Errorf("%v, %v", exit, err)
		}
	})
}

// Runs leave no descriptor and no goroutine.
func TestGuestLeavesNothing(t *testing.T) {
	r := guestOnly(t)
	run := func() {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		out := &expecting{text: "sleeping\n", f: cancel}
		if _, err := r.Run(ctx, helperSpec("sleep"), workload.Stdio{Out: out}, nil); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	run()
	fds, goroutines := descriptors(t), runtime.NumGoroutine()
	run()
	if got := descriptors(t); got > fds {
		t.Errorf("%d descriptors before, %d after", fds, got)
	}
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > goroutines && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if got := runtime.NumGoroutine(); got > goroutines {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines before, %d after:\n%s", goroutines, got, buf[:runtime.Stack(buf, true)])
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	r, w, err := os.Pipe() // the poller's descriptors stay
	if err == nil {
		err = errors.Join(r.Close(), w.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// Memory that a workload has freed goes back to the host while it runs.
func TestGuestReturnsMemory(t *testing.T) {
	r := guestOnly(t)
	in, say := io.Pipe()
	out := newWatched()
	spec := helperSpec("balloon")
	spec.Interactive = true
	done := make(chan struct{})
	go func() {
		defer close(done)
		exit, err := r.Run(t.Context(), spec, workload.Stdio{In: in, Out: out}, nil)
		if err != nil || exit.Status() != 0 {
			t.Errorf("%v, %v", exit, err)
		}
	}()
	defer func() { _ = say.Close(); <-done }()
	select {
	case <-out.seen("used"):
	case <-done:
		t.Fatal("it ended at once")
	}
	most := func() (n int64) {
		for _, private := range monitors(t) {
			n = max(n, private)
		}
		return n
	}
	used := most()
	if _, err := say.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); most()+64<<20 > used; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d MiB in use, %d before 96 were freed", most()>>20, used>>20)
		}
	}
	t.Logf("%d MiB in use, %d once 96 were freed", used>>20, most()>>20)
}
