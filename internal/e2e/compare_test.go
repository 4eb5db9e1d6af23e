package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/duplex-run/duplex/compare"
	"github.com/duplex-run/duplex/compare/isolation"
	"github.com/duplex-run/duplex/internal/testutil/freeport"
)

// sides are the two that this machine can compare: itself with itself where
// there are no microVMs.
func sides() (flag string, vm bool) {
	if inLab() {
		return "--isolation=vm,container,vm-warm", true
	}
	return "--isolation=container,container", false
}

func readDocument(t *testing.T, b []byte) *compare.Document {
	t.Helper()
	doc := new(compare.Document)
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(doc); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return doc
}

func TestCompare(t *testing.T) {
	flag, vm := sides()
	data := strings.Repeat("0123456789abcdef", 1<<16)
	path := filepath.Join(t.TempDir(), "doc.json")
	r := duplex(t, strings.NewReader(data), "compare", flag, "--lab=never", "-n", "1", "--warmup=0", "-i", "--output", path, image, "/helper", "cat")
	if r.status != 0 || r.stderr != "" {
		t.Fatalf("status %d, stderr %q", r.status, r.stderr)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doc := readDocument(t, b)
	for _, run := range doc.Runs {
		if run.Exit.Failed != "" || run.Exit.StdoutBytes != int64(len(data)) || run.CPUNs == 0 {
			t.Errorf("run %d, %s: %+v", run.Order, run.Isolation, run)
		}
		last := int64(0)
		for _, p := range []string{"image", "created", "loaded", "entered", "workload", "first_byte", "torn_down"} {
			ns, ok := run.PhasesNs[p]
			if !ok || ns < last {
				t.Errorf("%s: phase %s at %d ns (%v) after %d", run.Isolation, p, ns, ok, last)
			}
			last = ns
		}
	}
	if made := doc.Summary.Snapshot; vm != (made != nil) || vm && (made.CreateNs <= 0 || made.Bytes <= 0) {
		t.Errorf("snapshot %+v", made)
	}
	if len(doc.Runs) != len(doc.Settings.Sides) || !doc.Summary.SameOutput {
		t.Errorf("%d runs, same output %v", len(doc.Runs), doc.Summary.SameOutput)
	}
	checkStudy(t, doc.Summary.Isolation, vm)
	for line := range strings.Lines(r.stdout) {
		if len([]rune(line)) > compare.Columns+1 || strings.Contains(line, "\x1b") {
			t.Errorf("too wide, or coloured in a pipe: %q", line)
		}
	}
}

// checkStudy holds what the probe found against what each isolation promises.
func checkStudy(t *testing.T, st *compare.Study, vm bool) {
	t.Helper()
	verdicts := func(side int) map[string]isolation.Verdict {
		out := map[string]isolation.Verdict{}
		if st.Sides[side].Error != "" {
			t.Errorf("probe on side %d: %s", side, st.Sides[side].Error)
		}
		for _, f := range st.Sides[side].Findings {
			out[f.Name] = f.Verdict
		}
		return out
	}
	for name, want := range map[string]isolation.Verdict{
		"mount": isolation.Denied, "load module": isolation.Denied, "bpf": isolation.Denied,
		"set clock": isolation.Denied, "user namespace": isolation.Denied, "raw socket": isolation.Allowed,
	} {
		if got := verdicts(1)[name]; got != want {
			t.Errorf("container: %s %q, want %q", name, got, want)
		}
	}
	if !vm {
		return
	}
	for _, side := range []int{0, 2} {
		for name, got := range verdicts(side) {
			if got != "" && got != isolation.GuestOnly {
				t.Errorf("%s: %s %q, want %q", st.Sides[side].Isolation, name, got, isolation.GuestOnly)
			}
		}
	}
}

// A layer that is switched off is one that the probe does not find, and nothing
// else changes.
func TestCompareLayers(t *testing.T) {
	r := duplex(t, nil, "compare", "--isolation=container,container-no-seccomp,container-no-masks", "--lab=never",
		"-n", "1", "--warmup=0", "--json", image, "/helper", "exit", "0")
	if r.status != 0 {
		t.Fatalf("status %d, stderr %q", r.status, r.stderr)
	}
	st := readDocument(t, []byte(r.stdout)).Summary.Isolation
	finding := func(side int, name string) string {
		for _, f := range st.Sides[side].Findings {
			if f.Name == name {
				return f.String()
			}
		}
		t.Fatalf("side %d has no %q: %+v", side, name, st.Sides[side])
		return ""
	}
	for name, changes := range map[string][2]bool{ // without seccomp, without masks
		"seccomp": {true, false}, "user namespace": {true, false}, "io_uring": {true, false},
		"writable /proc": {false, true}, "capabilities": {}, "raw socket": {}, "set clock": {},
	} {
		for i, want := range changes {
			if got := finding(i+1, name) != finding(0, name); got != want {
				t.Errorf("%s: %q, with every layer %q", name, finding(i+1, name), finding(0, name))
			}
		}
	}
}

// The network of all columns, but for the one that does without a namespace: it
// has the host's.
func TestCompareNetwork(t *testing.T) {
	l, err := net.Listen("unix", "@duplex-e2e-compare")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	r := duplex(t, nil, "compare", "--isolation=container,container-no-network", "--lab=never", "-n", "1", "--warmup=0",
		"--json", "--network=user", "-p", "127.0.0.1:"+freeport.On(t, "tcp")+":80", image, "/helper", "exit", "0")
	if r.status != 0 {
		t.Fatalf("status %d, stderr %q", r.status, r.stderr)
	}
	doc := readDocument(t, []byte(r.stdout))
	if slices.Max(doc.Summary.Failed) > 0 {
		t.Errorf("failed: %+v", doc.Runs)
	}
	for side, want := range []map[string]string{
		{"network": "its own: eth0, lo", "abstract sockets": "0"},
		{"network": "the host's: ", "abstract sockets": ", the host's"},
	} {
		for _, f := range doc.Summary.Isolation.Sides[side].Findings {
			if text, ok := want[f.Name]; ok && (!strings.Contains(f.Detail, text) || f.Detail == "0, the host's") {
				t.Errorf("side %d: %s %q, want %q", side, f.Name, f.Detail, text)
			}
		}
	}
}

// Ctrl-C ends the run under way, prints what was measured, and leaves nothing.
func TestCompareInterrupted(t *testing.T) {
	runtime := filepath.Join(t.TempDir(), "run")
	t.Setenv("DUPLEX_RUNTIME", runtime)
	before := footprint(t, runtime)
	cmd := exec.Command(bin, "compare", "--isolation=container,container", "--lab=never", "-n", "100000",
		"--warmup=0", "--no-probe", "--json", "--progress", image, "/helper", "exit", "0")
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	progress, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitSamples(t, progress)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, progress)
	if got := status(t, cmd.Wait()); got != 128+int(syscall.SIGINT) {
		t.Errorf("status %d, want 130", got)
	}
	doc := readDocument(t, stdout.Bytes())
	if !doc.Summary.Interrupted || len(doc.Runs) < 3 || slices.Max(doc.Summary.Failed) > 0 {
		t.Errorf("interrupted %v after %d runs, failed %v", doc.Summary.Interrupted, len(doc.Runs), doc.Summary.Failed)
	}
	if after := footprint(t, runtime); strings.Join(after, "\n") != strings.Join(before, "\n") {
		t.Errorf("left behind:\n%s", strings.Join(after, "\n"))
	}
}

// awaitSamples reads the progress line until it has counted three samples.
func awaitSamples(t *testing.T, r io.Reader) {
	t.Helper()
	var seen []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(seen, []byte("(3/200000")) {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, seen)
		}
		seen = append(seen, buf[:n]...)
	}
}
