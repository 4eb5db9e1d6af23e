package microvm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/testutil/freeport"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm/trace"
)

// Clones of one snapshot have the networks and volumes of their own runs, of which the
// snapshot knows nothing.
func TestGuestWarm(t *testing.T) {
	r := guestOnly(t)
	base := helperSpec()
	base.Resources.MemoryBytes = 128 << 20
	dir, err := r.CreateSnapshot(t.Context(), base, filepath.Join(t.TempDir(), "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	w := warm{r, base, dir}
	t.Run("network", w.network)
	t.Run("addresses", w.addresses)
	t.Run("published", w.published)
	t.Run("tap", w.tap)
	t.Run("volumes", w.volumes)
	t.Run("all", w.all)
	t.Run("trace", w.trace)
	t.Run("exec", w.exec)
}

// warm is a snapshot to restore.
type warm struct {
	r    Runner
	spec workload.Spec
	dir  string
}

// run restores a machine for the helper and returns what it said.
func (w warm) run(t *testing.T, r Runner, spec workload.Spec, args ...string) string {
	t.Helper()
	spec.Argv = append([]string{"/helper"}, args...)
	var out, errs bytes.Buffer
	exit, err := warmRunner(t, r, w.spec, w.dir).Run(t.Context(), spec, workload.Stdio{Out: &out, Err: &errs}, nil)
	if err != nil || exit.Status() != 0 {
		t.Fatalf("%v: %v, %v: %s%s", args, exit, err, &out, &errs)
	}
	return out.String()
}

func (w warm) network(t *testing.T) {
	makeTAP(t, "dummy2", "10.96.0.1/24") // the stack does not lead to loopback
	spec, r := w.spec, w.r
	spec.Hostname, r.Network = "guest-a", &Network{}
	out := w.run(t, r, spec, "network", echoServer(t, "10.96.0.1:0"))
	for _, want := range []string{
		"address 10.0.2.15/24 mtu ", "/etc/resolv.conf:\nnameserver 10.0.2.3\n",
		"10.0.2.15\tguest-a\n", "peer: ping\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
}

// addresses asks clones from inside for the addresses of their interfaces.
func (w warm) addresses(t *testing.T) {
	macs := func(n *Network) []string {
		r := w.r
		r.Network = n
		var id guestIdentity
		if err := json.Unmarshal([]byte(w.run(t, r, w.spec, "identity")), &id); err != nil {
			t.Fatal(err)
		}
		return id.MACs
	}
	a, b := macs(&Network{}), macs(&Network{})
	if len(a) != 1 || len(b) != 1 || a[0] == b[0] {
		t.Errorf("two clones have the addresses %q and %q", a, b)
	}
	const own = "02:00:00:12:34:56"
	mac, err := net.ParseMAC(own)
	if err != nil {
		t.Fatal(err)
	}
	if c := macs(&Network{MAC: mac}); len(c) != 1 || c[0] != own {
		t.Errorf("a clone that was to have %s has %q", own, c)
	}
	if none := macs(nil); len(none) != 0 {
		t.Errorf("a clone without a network has %q", none)
	}
}

// published runs two clones at once, whose ports lead to each.
func (w warm) published(t *testing.T) {
	var ports []string
	clones := make(chan error, 2)
	for i := range 2 {
		ports = append(ports, freeport.On(t, "tcp"))
		r, spec := warmRunner(t, w.r, w.spec, w.dir), w.spec
		r.Network = &Network{Publish: []string{"127.0.0.1:" + ports[i] + ":80"}}
		spec.Argv = []string{"/helper", "serve", fmt.Sprint("clone ", i)}
		out := newWatched()
		go func() {
			exit, err := r.Run(t.Context(), spec, workload.Stdio{Out: out, Err: out}, nil)
			if err != nil || exit.Status() != 0 {
				err = fmt.Errorf("%v, %w: %s", exit, err, out)
			}
			clones <- err
		}()
		select {
		case <-out.seen("serving"):
		case err := <-clones:
			t.Fatal(err)
		}
	}
	for i, port := range ports {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if want := fmt.Sprint("clone ", i); err != nil || string(got) != want {
			t.Errorf("port %s leads to %q (%v), not %q", port, got, err, want)
		}
		_ = c.Close()
	}
	if err := errors.Join(<-clones, <-clones); err != nil {
		t.Error(err)
	}
}

func (w warm) tap(t *testing.T) {
	makeTAP(t, "tapw0", "10.95.0.1/24")
	r := w.r
	r.Network = &Network{Tap: "tapw0", Address: netip.MustParsePrefix("10.95.0.2/24"), DNS: netip.MustParseAddr("10.95.0.1")}
	out := w.run(t, r, w.spec, "network", echoServer(t, "10.95.0.1:0"))
	for _, want := range []string{"address 10.95.0.2/24 mtu ", "peer: ping\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
}

// volumes are the host's as they are now: what changed between two clones, the second
// sees.
func (w warm) volumes(t *testing.T) {
	rw, ro, file := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "one")
	spec := w.spec
	spec.Volumes = []workload.Volume{{Host: rw, Guest: "/new/rw"}, {Host: ro, Guest: "/ro", ReadOnly: true}, {Host: file, Guest: "/etc/one"}}
	for _, text := range []string{"first", "second"} {
		for _, path := range []string{filepath.Join(rw, "file"), filepath.Join(ro, "file"), file} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got := w.run(t, w.r, spec, "volumes", "/new/rw/file", "/ro/file", "/etc/one")
		want := fmt.Sprintf("/new/rw/file: %s, appended\n/ro/file: %s, read-only file system\n/etc/one: %s, appended\n", text, text, text)
		if got != want {
			t.Errorf("the clone found %q, not %q", got, want)
		}
		for path, want := range map[string]string{filepath.Join(rw, "file"): text + "+", filepath.Join(ro, "file"): text, file: text + "+"} {
			if b, err := os.ReadFile(path); err != nil || string(b) != want {
				t.Errorf("%s is now %q (%v), not %q", path, b, err, want)
			}
		}
	}
}

// all is a clone with as many devices as one can have.
func (w warm) all(t *testing.T) {
	spec, r := w.spec, w.r
	r.Network = &Network{}
	args := []string{"volumes"}
	var want strings.Builder
	for i := range maxVolumes {
		dir, guest := t.TempDir(), fmt.Sprintf("/v%d", i)
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(guest), 0o600); err != nil {
			t.Fatal(err)
		}
		spec.Volumes = append(spec.Volumes, workload.Volume{Host: dir, Guest: guest})
		args = append(args, guest+"/file")
		fmt.Fprintf(&want, "%s/file: %s, appended\n", guest, guest)
	}
	if got := w.run(t, r, spec, args...); got != want.String() {
		t.Errorf("%q, want %q", got, want.String())
	}
}

func (w warm) trace(t *testing.T) {
	r := w.r
	r.Trace = filepath.Join(t.TempDir(), "trace")
	w.run(t, r, w.spec, "exit", "0")
	f, err := os.Open(r.Trace)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	records, err := trace.NewReader(f)
	n := 0
	for err == nil {
		if err = records.Next(new(trace.Record)); err == nil {
			n++
		}
	}
	if err != io.EOF || n < 20 {
		t.Errorf("%d records, %v", n, err)
	}
}

// exec runs a further command in a clone.
func (w warm) exec(t *testing.T) {
	c, end := running(t, warmRunner(t, w.r, w.spec, w.dir), func(s *workload.Spec) { s.Resources = w.spec.Resources })
	var out bytes.Buffer
	if exit, err := c.Exec(t.Context(), command("/helper", "both"), workload.Stdio{Out: &out, Err: io.Discard}); err != nil || exit.Status() != 0 || out.String() != "to stdout" {
		t.Errorf("%v, %v, %q", exit, err, &out)
	}
	if exit := end(); exit.Status() != 137 {
		t.Errorf("the workload: %v", exit)
	}
}
