package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A volume is the same host directory or file for both isolations: read, written
// back, and not written when it is read-only.
func TestVolumes(t *testing.T) {
	each(t, func(t *testing.T, run []string) {
		dir := t.TempDir()
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, []byte("of the host"), 0o600); err != nil {
			t.Fatal(err)
		}
		tests := []struct {
			name   string
			volume string
			cmd    []string
			status int
			stdout string
			stderr string
		}{
			{"read", dir + ":/new/place", []string{"get", "/new/place/file"}, 0, "of the host", ""},
			{"write", dir + ":/v", []string{"touch", "/v/written"}, 0, "", ""},
			{"read-only", dir + ":/v:ro", []string{"get", "/v/file"}, 0, "of the host", ""},
			{"write to read-only", dir + ":/v:ro", []string{"touch", "/v/other"}, 99, "", "read-only file system"},
			{"a file", file + ":/etc/one", []string{"get", "/etc/one"}, 0, "of the host", ""},
			{"a file over a file", file + ":/etc/passwd:ro", []string{"get", "/etc/passwd"}, 0, "of the host", ""},
			{"write to a read-only file", file + ":/etc/one:ro", []string{"touch", "/etc/one"}, 99, "", "read-only file system"},
			{"missing", filepath.Join(dir, "none") + ":/v", []string{"exit", "0"}, 125, "", "mkdir -p"},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				r := duplex(t, nil, concat(run, []string{"-v", tt.volume, image, "/helper"}, tt.cmd)...)
				if r.status != tt.status || r.stdout != tt.stdout || !strings.Contains(r.stderr, tt.stderr) {
					t.Errorf("status %d, stdout %q, stderr %q; want %d, %q, %q", r.status, r.stdout, r.stderr, tt.status, tt.stdout, tt.stderr)
				}
			})
		}
		r := duplex(t, nil, concat(run, []string{"--read-only", "-v", dir + ":/new/place", image, "/helper", "touch", "/new/place/second"})...)
		if _, err := os.Stat(filepath.Join(dir, "second")); r.status != 0 || err != nil {
			t.Errorf("a volume of a read-only root: status %d, %s, %v", r.status, r.stderr, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "written")); err != nil || string(b) != "x" {
			t.Errorf("what the workload wrote: %q, %v", b, err)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != "of the host" {
			t.Errorf("the file is now %q, %v", b, err)
		}
	})
}

// What a microVM in the automatic lab writes to a volume comes back.
func TestVolumesThroughTheLab(t *testing.T) {
	if inLab() {
		t.Skip("it is the host that has a lab")
	}
	dir := t.TempDir()
	r := duplex(t, nil, "run", "--vm", "-v", dir+":/v", image, "/helper", "touch", "/v/written")
	if b, err := os.ReadFile(filepath.Join(dir, "written")); r.status != 0 || err != nil || string(b) != "x" {
		t.Errorf("status %d, %s; written %q, %v", r.status, r.stderr, b, err)
	}
}

// go-fuse's suite for file systems, inside a guest, on a volume.
func TestPosixOnAVolume(t *testing.T) {
	if inLab() {
		t.Skip("the host starts it")
	}
	dir := t.TempDir()
	build := exec.Command("go", "test", "-c", "-o", filepath.Join(dir, "suite"), "../../vmm/virtio/fs")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	work := t.TempDir()
	r := duplex(t, nil, "run", "--vm", "-v", dir+":/suite:ro", "-v", work+":/work", image, "/suite/suite", "-test.run=TestPosix", "-test.v", "-at=/work")
	if r.status != 0 || strings.Count(r.stdout, "--- PASS") < 20 {
		t.Errorf("status %d\n%s%s", r.status, r.stdout, r.stderr)
	}
}
