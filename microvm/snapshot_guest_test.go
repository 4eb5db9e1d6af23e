package microvm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/testutil/listing"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/microvm/snapshot"
	"github.com/duplex-run/duplex/vmm/state"
)

// warmRunner runs in machines restored from the snapshot in dir.
func warmRunner(t *testing.T, r Runner, spec workload.Spec, dir string) Runner {
	t.Helper()
	key, err := r.SnapshotKey(spec)
	if err != nil {
		t.Fatal(err)
	}
	if r.Snapshot, err = snapshot.Open(dir, &key); err != nil {
		t.Fatal(err)
	}
	return r
}

// One snapshot takes any workload, again and again, and stays as it is.
func TestGuestSnapshot(t *testing.T) {
	for _, cpus := range []float64{1, 2} {
		r := guestOnly(t)
		base := helperSpec()
		base.Resources.CPUs, base.Resources.MemoryBytes = cpus, 128<<20
		dir, err := r.CreateSnapshot(t.Context(), base, filepath.Join(t.TempDir(), "snapshots"))
		if err != nil {
			t.Fatal(err)
		}
		before := changed(t, filepath.Join(dir, "memory"))
		for i, c := range []struct {
			name   string
			change func(*workload.Spec)
			out    string
			status int
		}{
			{"output", func(s *workload.Spec) { s.Argv = []string{"/helper", "both"} }, "to stdout", 0},
			{"status", func(s *workload.Spec) { s.Argv = []string{"/helper", "exit", "42"} }, "", 42},
			{"signal", func(s *workload.Spec) { s.Argv = []string{"/helper", "kill", "9"} }, "", 137},
			{"missing", func(s *workload.Spec) { s.Argv = []string{"nothing"} }, "", 127},
			{"input", func(s *workload.Spec) { s.Argv, s.Interactive = []string{"/helper", "cat"}, true }, "to stdin", 0},
		} {
			if cpus > 1 && i > 0 {
				break // one will do
			}
			spec := base
			c.change(&spec)
			var out bytes.Buffer
			rec := new(workload.Recorder)
			exit, err := warmRunner(t, r, spec, dir).Run(t.Context(), spec, workload.Stdio{In: strings.NewReader("to stdin"), Out: &out, Err: os.Stderr}, rec)
			if err != nil || exit.Status() != c.status || out.String() != c.out {
				t.Errorf("%s on %v CPUs: %v (status %d), %v, %q; want %d, %q", c.name, cpus, exit, exit.Status(), err, &out, c.status, c.out)
			}
			stamps := rec.Stamps()
			if c.name == "output" {
				t.Logf("%v CPUs: from the first entry to the workload %.1f ms", cpus, float64(stamps["workload"]-stamps["entered"])/1e6)
			}
		}
		if changed(t, filepath.Join(dir, "memory")) != before {
			t.Errorf("running on %v CPUs changed the snapshot", cpus)
		}
	}
}

// A machine that does not fit the state, and a state that is nonsense though its
// checksum is right, are refused before a guest runs.
func TestGuestSnapshotRefused(t *testing.T) {
	r := guestOnly(t)
	spec := helperSpec("exit", "0")
	spec.Resources.MemoryBytes = 128 << 20
	dir, err := r.CreateSnapshot(t.Context(), spec, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(*workload.Spec, *snapshot.Snapshot){
		"memory":  func(s *workload.Spec, _ *snapshot.Snapshot) { s.Resources.MemoryBytes = 2 * DefaultMemory },
		"CPUs":    func(s *workload.Spec, _ *snapshot.Snapshot) { s.Resources.CPUs = 2 },
		"short":   func(_ *workload.Spec, s *snapshot.Snapshot) { s.Machine = s.Machine[:len(s.Machine)/2] },
		"version": func(_ *workload.Spec, s *snapshot.Snapshot) { s.Machine = bytes.Clone(s.Machine); s.Machine[8]++ },
		"processor": func(_ *workload.Spec, s *snapshot.Snapshot) {
			m, err := state.Decode(s.Machine)
			if err != nil {
				t.Fatal(err)
			}
			m.CPUs[0].CPUID[0].EBX++ // of the vendor's name
			s.Machine = m.Encode()
		},
	} {
		warm := warmRunner(t, r, spec, dir)
		other := spec
		damage(&other, warm.Snapshot)
		exit, err := warm.Run(t.Context(), other, workload.Stdio{}, nil)
		var own *workload.Error
		if !errors.As(err, &own) || own.Remedy == "" {
			t.Errorf("%s: %v, %v", name, exit, err)
		}
		t.Log(err)
	}
}

// A snapshot that is interrupted in the making, or finds the disk full, leaves nothing.
func TestGuestSnapshotFails(t *testing.T) {
	r := guestOnly(t)
	spec := helperSpec()
	spec.Resources.MemoryBytes = 128 << 20
	empty := func(root string) {
		if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
			t.Errorf("left %v, %v", entries, err)
		}
	}
	root := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	r.Console = cancelWriter(cancel) // Linux says something while it boots
	r.Cmdline = "loglevel=7"
	if dir, err := r.CreateSnapshot(ctx, spec, root); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %q, %v", dir, err)
	}
	empty(root)
	r.Console, r.Cmdline = nil, ""
	disk := t.TempDir()
	small := filepath.Join(disk, "snapshots") // not writable by everybody
	err := listing.OnSmallDisk(4<<20, disk, func() error {
		var own *workload.Error
		dir, err := r.CreateSnapshot(t.Context(), spec, small)
		if !errors.As(err, &own) || !strings.Contains(err.Error(), "the file system of "+small+" is full") || own.Remedy == "" {
			t.Errorf("full: %q, %v", dir, err)
		}
		empty(small)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// cancelWriter ends a context when it is written to.
type cancelWriter context.CancelFunc

func (c cancelWriter) Write(p []byte) (int, error) {
	c()
	return len(p), nil
}

// changed is when a file was last changed in any way.
func changed(t *testing.T, path string) unix.Timespec {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ctim
}
