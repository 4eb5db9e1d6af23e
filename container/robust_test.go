package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/cgroup"
	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/testutil/netns"
	"github.com/duplex-run/duplex/internal/workload"
)

// limited runs spec, or reports false where this user may not set limits and is
// told so.
func limited(t *testing.T, spec workload.Spec) (result, bool) {
	t.Helper()
	r, err := tryRun(t, spec, nil)
	var missing *cgroup.MissingError
	if errors.As(err, &missing) {
		var we *workload.Error
		if os.Geteuid() == 0 || !errors.As(err, &we) || !strings.Contains(we.Remedy, missing.Controller) {
			t.Fatalf("%v: root can set limits, others are told what is missing", err)
		}
		return r, false
	}
	must(t, err)
	return r, true
}

func TestMemoryLimit(t *testing.T) {
	tree := newTree(t)
	spec := newSpec(tree, "hog", "256")
	spec.Resources.MemoryBytes = 64 << 20
	r, ok := limited(t, spec)
	if !ok {
		return
	}
	if r.exit.Status() != 137 || !r.exit.OOM {
		t.Errorf("%+v %q, want an OOM kill", r.exit, r.out)
	}
	spec = newSpec(tree, "hog", "16")
	spec.Resources.MemoryBytes = 64 << 20
	r, _ = limited(t, spec)
	peak := r.rec.Usage().Memory["cgroup_peak"]
	if r.exit.Status() != 0 || r.exit.OOM || peak < 16<<20 || peak > 64<<20 {
		t.Errorf("%+v, peak %d, want 16 MiB to 64 MiB", r.exit, peak)
	}
}

func TestPidsLimit(t *testing.T) {
	spec := newSpec(newTree(t), "fork", "100")
	spec.Resources.Pids = 30
	r, ok := limited(t, spec)
	if !ok {
		return
	}
	// Each process of the workload is a Go program with several threads.
	var started int
	_, err := fmt.Sscanf(r.out, "started %d", &started)
	if err != nil || started == 0 || started >= 29 || !strings.Contains(r.out, "resource temporarily unavailable") {
		t.Errorf("%q %v, want fork to fail before the 30th", r.out, err)
	}
	// The limit counts the workload only: one thread is enough for one.
	spec = newSpec(newTree(t), "exit", "0")
	spec.Resources.Pids = 1
	spec.Argv = []string{"nosuch"}
	if r, _ := limited(t, spec); r.exit.Status() != 127 {
		t.Errorf("%+v with a limit of one process", r.exit)
	}
}

func TestCPULimit(t *testing.T) {
	spec := newSpec(newTree(t), "spin", "1000")
	spec.Resources.CPUs = 0.2
	r, ok := limited(t, spec)
	if !ok {
		return
	}
	var throttled int
	if _, err := fmt.Sscanf(r.out, "throttled %d", &throttled); err != nil || throttled < 3 {
		t.Errorf("%q: one second of work with 0.2 CPUs was throttled fewer than 3 times (%v)", r.out, err)
	}
}

// Every kind of image that tries to lead the set-up out of its root.
func TestHostileImages(t *testing.T) {
	outside := t.TempDir()
	for _, tt := range []struct {
		name string
		make func(tree string) error
		cwd  string
		want string // of the error; "" for a run that ends well
	}{
		{"proc is a link to /", func(d string) error { return os.Symlink("/", d+"/proc") }, "/", "symbolic link"},
		{"sys is a link out", func(d string) error { return os.Symlink(outside, d+"/sys") }, "/", "symbolic link"},
		{"dev is a link", func(d string) error { return os.Symlink("tmp", d+"/dev") }, "/", "symbolic link"},
		{"dev is a file", func(d string) error { return os.WriteFile(d+"/dev", nil, 0o644) }, "/", "cannot be mounted on a file"},
		{"proc is a fifo", func(d string) error { return unix.Mkfifo(d+"/proc", 0o644) }, "/", "cannot be mounted on a file"},
		{"etc links out", func(d string) error {
			return errors.Join(os.RemoveAll(d+"/etc"), os.Symlink("../../../../../../../../"+outside, d+"/etc"))
		}, "/etc/made", "file exists"},
		{"cwd through an absolute link", func(d string) error { return os.Symlink(outside, d+"/cwd") }, "/cwd/made", "file exists"},
		{"cwd through a relative link", func(d string) error { return os.Symlink("../../../../../../../../../.."+outside, d+"/cwd") }, "/cwd/made", "file exists"},
		{"cwd is a loop", func(d string) error { return os.Symlink("cwd", d+"/cwd") }, "/cwd", "too many levels"},
		{"cwd is a file", func(d string) error { return os.WriteFile(d+"/cwd", nil, 0o644) }, "/cwd", "not a directory"},
		{"cwd through a descriptor", func(string) error { return nil }, "/proc/self/fd/3", "working directory"},
		{"things in dev", func(d string) error {
			return errors.Join(os.Mkdir(d+"/dev", 0o755), os.Symlink(outside, d+"/dev/pts"), os.Symlink(outside+"/x", d+"/dev/null"))
		}, "/", ""},
		{"things in proc", func(d string) error {
			return errors.Join(os.MkdirAll(d+"/proc/self", 0o755), os.Symlink("/", d+"/proc/sys"))
		}, "/", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := newTree(t)
			must(t, tt.make(tree))
			spec := newSpec(tree, "exit", "0")
			spec.Cwd = tt.cwd
			r, err := tryRun(t, spec, nil)
			switch {
			case tt.want == "" && (err != nil || r.exit.Status() != 0):
				t.Errorf("%+v %v", r.exit, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%+v %v, want an error with %q", r.exit, err, tt.want)
			}
			entries, err := os.ReadDir(outside)
			if err != nil || len(entries) > 0 {
				t.Errorf("outside the image: %v %v", entries, err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	tree := newTree(t)
	for name, change := range map[string]func(*workload.Spec){
		"no such image":        func(s *workload.Spec) { s.Rootfs.Tree = "/no/such" },
		"image is a file":      func(s *workload.Spec) { s.Rootfs.Tree = "/etc/passwd" },
		"EROFS is no EROFS":    func(s *workload.Spec) { s.Rootfs = workload.Rootfs{EROFS: "/etc/passwd"} },
		"no image":             func(s *workload.Spec) { s.Rootfs = workload.Rootfs{} },
		"no command":           func(s *workload.Spec) { s.Argv = nil },
		"id with a slash":      func(s *workload.Spec) { s.ID = "../../x" },
		"host name too long":   func(s *workload.Spec) { s.Hostname = strings.Repeat("x", 65) },
		"working dir relative": func(s *workload.Spec) { s.Cwd = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			spec := newSpec(tree, "exit", "0")
			change(&spec)
			r, err := tryRun(t, spec, nil)
			var we *workload.Error
			if err == nil || !errors.As(err, &we) {
				t.Errorf("%+v %v, want a *workload.Error", r.exit, err)
			}
		})
	}
	checkNothingLeft(t)
}

// checkNothingLeft looks for what runs may leave on the host.
func checkNothingLeft(t *testing.T) {
	t.Helper()
	if _, err := hostdir.Sweep(); err != nil {
		t.Errorf("sweep: %v", err)
	}
	root, err := hostdir.RuntimeRoot()
	must(t, err)
	entries, err := os.ReadDir(root)
	must(t, err)
	// The list of this user's runs is kept, empty.
	if runs, err := os.ReadDir(filepath.Join(root, ".runs")); err == nil && len(runs) == 0 {
		entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return e.Name() == ".runs" })
	}
	if len(entries) > 0 {
		t.Errorf("%s holds %v", root, entries)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " overlay duplex ") || strings.Contains(line, " tmpfs duplex ") {
			t.Errorf("mounted on the host: %s", line)
		}
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "duplex-") && strings.HasSuffix(d.Name(), testTag) {
			t.Errorf("left: %s", path)
		}
		return nil
	})
	if left := processes(); len(left) > 0 {
		t.Errorf("processes left: %q", left)
	}
}

// processes lists the containers' processes that descend from nobody or us.
func processes() []string {
	var out []string
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		b, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err != nil || !bytes.Contains(b, []byte("DUPLEX_TEST_MARK="+testTag)) {
			continue
		}
		cmd, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		out = append(out, e.Name()+" "+strings.ReplaceAll(string(cmd), "\x00", " "))
	}
	return out
}

// kill -9 of duplex at any moment, twenty times, leaves nothing that the next
// run does not clean.
func TestKilled(t *testing.T) {
	t.Setenv("DUPLEX_RUNTIME", filepath.Join(t.TempDir(), "run"))
	tree := newTree(t)
	self, err := os.Executable()
	must(t, err)
	// One run to its end says how long the phases take here.
	start := time.Now()
	runIt(t, newSpec(tree, "exit", "0"))
	span := 2 * time.Since(start)
	kills := 20
	if testing.Short() {
		kills = 6
	}
	for i := range kills {
		spec := newSpec(tree, "fork", "2")
		spec.Argv = []string{"work", "sleep"}
		spec.Env = append(spec.Env, "DUPLEX_TEST_MARK="+testTag)
		text, err := json.Marshal(spec)
		must(t, err)
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), envRun+"="+string(text))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		must(t, cmd.Start())
		time.Sleep(span * time.Duration(i) / time.Duration(kills)) // spread over the phases, no synchronisation
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
	// Death travels from duplex to init by signal and from init to the rest by
	// the kernel: it takes a moment.
	for deadline := time.Now().Add(10 * time.Second); len(processes()) > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	checkNothingLeft(t)
}

// TestAsUser runs the tests of this package again without root.
func TestAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: this run is the one without root")
		return
	}
	if b, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); err != nil || string(bytes.TrimSpace(b)) == "0" {
		t.Fatalf("this host has no user namespaces: %s %v", b, err)
	}
	self, err := os.Executable()
	must(t, err)
	dir := t.TempDir()
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	binary := filepath.Join(dir, "container.test")
	must(t, copyFile(self, binary, 0o755))
	const id = 54321
	home := filepath.Join(dir, "home")
	must(t, os.Mkdir(home, 0o700))
	must(t, os.Chown(home, id, id))
	cmd := exec.Command(binary, "-test.v", "-test.timeout=5m", "-test.short="+strconv.FormatBool(testing.Short()))
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "TMPDIR=" + home, "DUPLEX_RUNTIME=" + home + "/run", "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	out, err := netns.Output(cmd)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if n := bytes.Count(out, []byte("\n--- PASS: ")); n < 15 || slices.Contains(strings.Fields(string(out)), "SKIP:") {
		t.Errorf("%d tests passed without root:\n%s", n, out)
	}
}
