package microvm

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/duplex-run/duplex/internal/workload"
)

// guestIdentity is what testdata/helper says of its machine.
type guestIdentity struct {
	BootID, MachineID, Hostname string
	Random, Canary              []byte
	MACs                        []string
	TimeNs, MonotonicNs         int64
	Generations                 int
}

// clockBound is how far a clone's wall clock may be off: what a start message takes
// from the host to the guest, with room for an emulated machine on a busy host.
const clockBound = 2 * time.Second

// Two clones of one snapshot are two machines.
func TestGuestClones(t *testing.T) {
	r := guestOnly(t)
	dir, err := r.CreateSnapshot(t.Context(), helperSpec(), filepath.Join(t.TempDir(), "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := runClone(t, r, dir, "clone-a"), runClone(t, r, dir, "clone-b")
	if a.Hostname != "clone-a" || b.Hostname != "clone-b" {
		t.Errorf("host names %q, %q", a.Hostname, b.Hostname)
	}
	if a.BootID == b.BootID || len(a.BootID) != len("01234567-0123-4123-8123-0123456789ab") {
		t.Errorf("boot ids %q, %q", a.BootID, b.BootID)
	}
	if bytes.Equal(a.Random, b.Random) || len(a.Random) != 32 {
		t.Errorf("random numbers %x, %x", a.Random, b.Random)
	}
	if bytes.Equal(a.Canary, b.Canary) || len(a.Canary) != 16 {
		t.Errorf("random numbers of execve %x, %x", a.Canary, b.Canary)
	}
	if a.Generations != 1 || b.Generations != 1 {
		t.Errorf("told %d and %d times of a new generation id", a.Generations, b.Generations)
	}
	if a.MachineID == imageMachineID || a.MachineID == b.MachineID || len(a.MachineID) != len(imageMachineID) {
		t.Errorf("machine ids %q, %q", a.MachineID, b.MachineID)
	}
}

// runClone restores a machine and asks it who it is.
func runClone(t *testing.T, r Runner, dir, name string) (id guestIdentity) {
	t.Helper()
	spec := helperSpec("identity")
	spec.Hostname = name
	var out bytes.Buffer
	before := time.Now()
	exit, err := warmRunner(t, r, spec, dir).Run(t.Context(), spec, workload.Stdio{Out: &out, Err: os.Stderr}, nil)
	after := time.Now()
	if err != nil || exit.Status() != 0 {
		t.Fatalf("%v, %v", exit, err)
	}
	if err := json.Unmarshal(out.Bytes(), &id); err != nil {
		t.Fatal(err)
	}
	if clock := time.Unix(0, id.TimeNs); clock.Before(before.Add(-clockBound)) || clock.After(after.Add(clockBound)) {
		t.Errorf("the clone's clock says %v between %v and %v", clock, before, after)
	}
	return id
}
