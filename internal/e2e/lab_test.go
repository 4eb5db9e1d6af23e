package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var inlabFlag = flag.String("inlab", "", "which tests TestInLab runs in the lab: a regular expression; empty means all")

// TestInLab runs this very test binary inside the lab, on the files that the
// host prepared: both isolations, on a KVM that boots stock kernels, cgroup v2.
func TestInLab(t *testing.T) {
	if inLab() {
		return // it is this test that is running us
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	digest := imported(t, image)
	d := needDebian(t)
	listing := filepath.Join(t.TempDir(), "listing")
	if err := os.WriteFile(listing, []byte(d.listing), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := duplex(t, nil, "run", "--vm", "--lab=always", digest, "/helper", "exit", "42"); r.status != 42 {
		t.Fatalf("the first run, which fills the cache: status %d\n%s", r.status, r.stderr)
	}
	cache := os.Getenv("DUPLEX_CACHE")
	var carry []string
	for _, d := range []string{"images", "kernels", "initramfs", "vmlinux"} {
		if _, err := os.Stat(filepath.Join(cache, d)); err == nil {
			carry = append(carry, "--carry", filepath.Join(cache, d))
		}
	}
	flags := []string{"-test.v", "-duplex=" + bin, "-image=" + digest, "-debian=" + imported(t, d.ref), "-listing=" + listing}
	groups := []string{
		"TestExitStatuses|TestFlags|TestRootIs|TestVolumes|TestBadInputs|TestDoctor|TestGuestEnds|TestTerminal",
		"TestStreams|TestAGigabyte|TestDebian|TestSignals|TestSnapshot",
		"TestCompare|TestKilledRuns|TestEndedRuns",
		"TestControl",
	}
	if *inlabFlag != "" {
		groups = []string{*inlabFlag}
	}
	for _, g := range groups {
		t.Run(g, func(t *testing.T) {
			t.Parallel() // a lab has one CPU; go test -parallel says how many
			args := concat([]string{"lab", "run", "--timeout=12m"}, carry, []string{"--", self, "-test.timeout=11m", "-test.run=" + g}, flags)
			out, err := inTheLab(t, args)
			if err != nil {
				t.Fatalf("in the lab: %v", err)
			}
			if *inlabFlag == "" && !strings.Contains(out, "/vm (") {
				t.Error("the lab did not run the microVM's tests")
			}
		})
	}
}

// inTheLab runs `duplex lab run`, and once more when the machine itself failed: the
// emulator is not free of faults (see docs/lab.md).
func inTheLab(t *testing.T, args []string) (string, error) {
	t.Helper()
	for try := 1; ; try++ {
		var out, errs bytes.Buffer
		cmd := exec.CommandContext(t.Context(), bin, args...)
		cmd.Stdout = io.MultiWriter(os.Stdout, &out) // minutes of it: show it as it comes
		cmd.Stderr = io.MultiWriter(os.Stderr, &errs)
		err := cmd.Run()
		if try == 1 && strings.Contains(errs.String(), labFailed) {
			fmt.Printf("in the lab: %v: once more\n%s", err, &errs)
			continue
		}
		return out.String(), err
	}
}

// imported imports ref and returns its digest.
func imported(t *testing.T, ref string) string {
	t.Helper()
	if r := duplex(t, nil, "image", "import", ref); r.status != 0 {
		t.Fatalf("import: %s", r.stderr)
	}
	r := duplex(t, nil, "image", "inspect", "--json", ref)
	var doc struct{ Digest string }
	if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil || !strings.HasPrefix(doc.Digest, "sha256:") {
		t.Fatalf("inspect %s: %v: %q, %s", ref, err, r.stdout, r.stderr)
	}
	return doc.Digest
}

// The automatic lab: --vm on a host whose KVM cannot boot a stock kernel says
// so in one line, and behaves as it would elsewhere.
func TestRunVMAnywhere(t *testing.T) {
	r := duplex(t, strings.NewReader("through"), "run", "--vm", "-i", image, "/helper", "cat")
	if r.status != 0 || r.stdout != "through" {
		t.Errorf("status %d, stdout %q\n%s", r.status, r.stdout, r.stderr)
	}
	if n := strings.Count(r.stderr, "\n"); n > 1 {
		t.Errorf("%d lines on stderr, want at most the one that names the lab: %q", n, r.stderr)
	}
	a := duplex(t, nil, "run", "--vm", "builtin", "uname", "-r")
	b := duplex(t, nil, "run", "--container", "builtin", "uname", "-r")
	if a.status != 0 || b.status != 0 || a.stdout == b.stdout || a.stdout == "" {
		t.Errorf("kernels: microVM %q (%d, %s), container %q (%d, %s)", a.stdout, a.status, a.stderr, b.stdout, b.status, b.stderr)
	}
	fmt.Fprintf(os.Stderr, "microVM %scontainer %s", a.stdout, b.stdout)
}
