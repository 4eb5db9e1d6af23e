package microvm

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/duplex-run/duplex/vmm"
)

// memoryBound is what a monitor may take beside the guest's memory, in bytes,
// whatever the guest does: docs/threat-model.md adds it up.
const memoryBound = 160 << 20

// A guest that floods the serial port, the console, the socket device and a disk
// at once, its exits traced, ends when it is told to, and its monitor stays
// within its bound.
func TestGuestFlood(t *testing.T) {
	guestOnly(t)
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	stats := make(chan vmm.Stats)
	stopped := make(chan struct{})
	g := startBare(t, "flood", func(h *Hardware, o *BootOptions) {
		h.Disks = []Disk{{Path: disk, ID: "rw"}}
		h.Vsock, h.Console, o.Trace = filepath.Join(dir, "vsock"), true, filepath.Join(dir, "trace")
		o.Console, o.StatsEvery = slow{}, 500*time.Millisecond
		o.OnStats = func(s vmm.Stats) {
			select {
			case stats <- s:
			case <-stopped:
			}
		}
	})
	defer close(stopped)
	g.await("bare: ready")
	for range 20 {
		s := <-stats
		for pid, beside := range monitors(t) {
			if beside > int64(s.Resident)+memoryBound {
				t.Errorf("monitor %d takes %d MiB, the guest has %d", pid, beside>>20, s.Resident>>20)
			}
		}
	}
	began := time.Now()
	g.cancel()
	for {
		select {
		case <-stats:
			continue
		case <-g.done:
		}
		break
	}
	if g.err != nil || g.exit.Reason != vmm.Canceled {
		t.Errorf("ended by %v, %v", g.exit, g.err)
	}
	t.Logf("ended %v after it was told to", time.Since(began))
}

// slow is a reader that does not keep up.
type slow struct{}

func (slow) Write(p []byte) (int, error) {
	time.Sleep(time.Millisecond) // what makes it slow
	return len(p), nil
}

// monitors are the private memory of this process's children, in bytes.
func monitors(t *testing.T) map[int]int64 {
	t.Helper()
	out := map[int]int64{}
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		pids, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(pids)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open("/proc/" + field + "/smaps_rollup")
			if err != nil {
				continue // it has ended
			}
			if n, err := privateMemory(f); err == nil {
				out[pid] = n
			}
			_ = f.Close()
		}
	}
	return out
}

// A guest without drivers drives every device by its registers and rings alone,
// as no driver would, jailed and not: each device comes up again each time.
func TestGuestAttack(t *testing.T) {
	guestOnly(t)
	for _, jailed := range []bool{true, false} {
		dir := t.TempDir()
		disk := filepath.Join(dir, "disk")
		if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		g := startBare(t, "attack mem=192M", func(h *Hardware, o *BootOptions) {
			h.Disks = []Disk{{Path: disk, ID: "rw"}}
			h.Networks = []Network{{}}
			h.Shares = []Share{{Dir: dir, Tag: "dir"}}
			h.Vsock, h.Console, h.Balloon = filepath.Join(dir, "vsock"), true, true
			o.NoJail = !jailed
		})
		g.finish("attack")
		if n := strings.Count(g.serial.String(), ": 14 attacks"); n != 7 {
			t.Errorf("jailed %v: %d devices were attacked, want 7", jailed, n)
		}
	}
}
