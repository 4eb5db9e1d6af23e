package microvm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
)

// bare is a guest whose init is testdata/bare, running.
type bare struct {
	t      *testing.T
	serial *watched
	input  *io.PipeWriter // the guest's serial port
	cancel context.CancelFunc
	done   chan struct{}
	exit   vmm.Exit
	stats  vmm.Stats
	err    error
}

// startBare boots a kernel that does action; change adds devices and options.
func startBare(t *testing.T, action string, change func(*Hardware, *BootOptions)) *bare {
	t.Helper()
	guestOnly(t)
	g := &bare{t: t, serial: newWatched(), done: make(chan struct{})}
	in, out := io.Pipe()
	g.input = out
	h := Hardware{
		Kernel: *kernelFlag, Initrd: *bareFlag, Memory: 256 << 20, CPUs: 1,
		Cmdline: vmm.DefaultCmdline + " bare=" + action,
	}
	o := BootOptions{Serial: g.serial, SerialInput: in}
	if change != nil {
		change(&h, &o)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	g.cancel = cancel
	go func() {
		defer close(g.done)
		g.exit, g.stats, g.err = Boot(ctx, h, o)
	}()
	t.Cleanup(func() {
		cancel()
		_ = out.Close()
		<-g.done
		if t.Failed() {
			t.Logf("serial port:\n%s", g.serial)
		}
	})
	return g
}

// say writes a line to the guest's serial port.
func (g *bare) say(line string) {
	g.t.Helper()
	if _, err := io.WriteString(g.input, line+"\n"); err != nil {
		g.t.Error(err)
	}
}

// await waits until the guest has printed text.
func (g *bare) await(text string) {
	g.t.Helper()
	select {
	case <-g.serial.seen(text):
	case <-g.done:
		if !strings.Contains(g.serial.String(), text) {
			g.t.Fatalf("the guest ended (%v, %v) before it printed %q", g.exit, g.err, text)
		}
	}
}

// finish waits for the guest to power off by itself, with its action done.
func (g *bare) finish(action string) {
	g.t.Helper()
	<-g.done
	if g.err != nil || g.exit.Reason != vmm.PowerOff {
		g.t.Errorf("ended by %v, %v", g.exit, g.err)
	}
	if !strings.Contains(g.serial.String(), "bare: "+action+": ok") {
		g.t.Errorf("%s failed", action)
	}
}

// watched is a writer whose text can be waited for.
type watched struct {
	mu    sync.Mutex
	text  bytes.Buffer
	waits map[string]chan struct{}
}

func newWatched() *watched { return &watched{waits: map[string]chan struct{}{}} }

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	for text, ch := range w.waits {
		if strings.Contains(w.text.String(), text) {
			close(ch)
			delete(w.waits, text)
		}
	}
	return len(p), nil
}

// seen is closed once text was written.
func (w *watched) seen(text string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch := w.waits[text]
	if ch == nil {
		ch = make(chan struct{})
		if strings.Contains(w.text.String(), text) {
			close(ch)
		} else {
			w.waits[text] = ch
		}
	}
	return ch
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// What goes into the serial port comes out of it.
func TestGuestBootSerial(t *testing.T) {
	g := startBare(t, "echo", nil)
	g.await("bare: ready")
	g.say("a line that is much longer than the sixteen bytes that the port's FIFO takes at once")
	g.await("you said a line that is much longer than the sixteen bytes that the port's FIFO takes at once")
	g.say("quit")
	g.finish("echo")
}

// The power button reaches the guest, and a guest that does not care is ended by
// the context.
func TestGuestBootButton(t *testing.T) {
	shutdown := make(chan struct{})
	g := startBare(t, "button", func(_ *Hardware, o *BootOptions) { o.Shutdown = shutdown })
	g.await("bare: ready")
	close(shutdown)
	g.finish("button")
}

func TestGuestBootCanceled(t *testing.T) {
	g := startBare(t, "echo", nil)
	g.await("bare: ready")
	g.cancel()
	<-g.done
	if g.err != nil || g.exit.Reason != vmm.Canceled {
		t.Errorf("ended by %v, %v", g.exit, g.err)
	}
}

// A disk is written where it may be, by several queues and past the page cache,
// and only there.
func TestGuestBootDisk(t *testing.T) {
	for _, direct := range []bool{false, true} {
		dir := t.TempDir()
		rw, ro := filepath.Join(dir, "rw"), filepath.Join(dir, "ro")
		content := bytes.Repeat([]byte("before"), 4<<20/6+1)[:4<<20]
		hello := make([]byte, 4096)
		copy(hello[512:], "written by the host")
		for path, data := range map[string][]byte{rw: content, ro: hello} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		g := startBare(t, "disk", func(h *Hardware, _ *BootOptions) {
			h.CPUs = 2
			h.Disks = []Disk{{Path: rw, ID: "rw", Queues: 2, Direct: direct && directWorks(t, rw)}, {Path: ro, ID: "ro", ReadOnly: true}}
		})
		g.finish("disk")
		if !strings.Contains(g.serial.String(), "bare: queues 2") {
			t.Error("the disk has not two queues")
		}
		got, err := os.ReadFile(rw)
		if err != nil {
			t.Fatal(err)
		}
		const mib = 1 << 20
		for i := 0; i < mib; i += 8 {
			if v := le64(got[i:]); v != uint64(i) {
				t.Fatalf("offset %d holds %#x", i, v)
			}
		}
		if !bytes.Equal(got[mib:3*mib], make([]byte, 2*mib)) {
			t.Error("discarded and zeroed blocks are not zero")
		}
		if !bytes.Equal(got[3*mib:], content[3*mib:]) {
			t.Error("blocks that nobody wrote have changed")
		}
		if now, err := os.ReadFile(ro); err != nil || !bytes.Equal(now, hello) {
			t.Errorf("the read-only disk has changed: %v", err)
		}
	}
}

// A kernel that is none, and other bad hardware, end with an error that says so.
func TestBootRefuses(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("no kernel\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		h    Hardware
		want string
	}{
		{Hardware{Kernel: text, Memory: 64 << 20}, "text"},
		{Hardware{Kernel: text, Memory: 64 << 20, CPUs: 1000}, "1000 CPUs"},
		{Hardware{Kernel: text, Memory: 64 << 20, Disks: []Disk{{Path: "/absent"}}}, "/absent"},
	} {
		_, _, err := Boot(t.Context(), c.h, BootOptions{NoJail: true})
		var own *workload.Error
		if !errors.As(err, &own) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.h, err, c.want)
		}
	}
}
