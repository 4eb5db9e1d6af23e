package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/compare/isolation"
)

// The test binary is the probe too: with "probe" it prints the document, with
// any other single argument it makes that attempt, as the real one does.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "probe" {
		os.Args = os.Args[:1]
		main()
		os.Exit(0)
	}
	if len(os.Args) == 2 && !strings.HasPrefix(os.Args[1], "-") {
		os.Exit(runAttempt(os.Args[1]))
	}
	os.Exit(m.Run())
}

func probe(t *testing.T, attr *syscall.SysProcAttr) *isolation.Observation {
	t.Helper()
	c := exec.Command("/proc/self/exe", "probe")
	c.SysProcAttr = attr
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("probe: %v\n%s", err, stderr.Bytes())
	}
	o, err := isolation.Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestProbeSeesThisKernel(t *testing.T) {
	o := probe(t, nil)
	h, err := isolation.ReadHost()
	if err != nil {
		t.Fatal(err)
	}
	if isolation.OwnKernel(o, h) || o.Kernel != h.Kernel || o.Values.BTime != h.Values.BTime {
		t.Errorf("saw another kernel: %s %s, host %s %s", o.Kernel, o.BootID, h.Kernel, h.BootID)
	}
	if o.Processes < 2 || o.UID != os.Getuid() {
		t.Errorf("%d processes, uid %d", o.Processes, o.UID)
	}
	null := slices.IndexFunc(o.Devices, func(d isolation.Device) bool { return d.Path == "/dev/null" })
	if null < 0 || o.Devices[null].Node != "c 1:3" || o.Devices[null].Err != "" {
		t.Errorf("/dev/null is missing or odd in %+v", o.Devices)
	}
	for i, a := range attempts() {
		if o.Attempts[i].Name != a.name || o.Attempts[i].Step != "" {
			t.Errorf("attempt %d: %+v, want %s tried", i, o.Attempts[i], a.name)
		}
	}
}

// In a new user namespace the caller has every capability there and none over
// the kernel itself: a real kernel tells the two apart for every attempt.
func TestProbeInUserNamespace(t *testing.T) {
	o := probe(t, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	})
	if len(o.UIDMap) != 1 || !strings.HasPrefix(o.UIDMap[0], "0 ") || !strings.HasSuffix(o.UIDMap[0], " 1") {
		t.Errorf("uid map %q", o.UIDMap)
	}
	want := map[string]bool{"mount": true, "user namespace": true, "ptrace": true, "mknod": false, "raw socket": false, "set clock": false}
	for _, a := range o.Attempts {
		allowed, known := want[a.Name]
		if known && a.Allowed != allowed {
			t.Errorf("%+v, want allowed %v", a, allowed)
		}
		if known && !allowed && a.Errno != "EPERM" {
			t.Errorf("%s: errno %s, want EPERM", a.Name, a.Errno)
		}
	}
}

func TestAttemptsAreUndone(t *testing.T) {
	before := state(t)
	tryAll()
	if after := state(t); after != before {
		t.Errorf("left something behind:\n%s\nbefore:\n%s", after, before)
	}
}

// state is the mounts and the scratch directories; other programs run beside
// the tests, so only our own names count.
func state(t *testing.T) string {
	t.Helper()
	var ours []string
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "duplex-probe") {
			ours = append(ours, line)
		}
	}
	for _, dir := range []string{"/", "/tmp", "/dev/shm", "/run"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".duplex-probe-") {
				ours = append(ours, dir+" "+e.Name()+"\n")
			}
		}
	}
	return strings.Join(ours, "")
}

func TestChildThatDiesIsDenied(t *testing.T) {
	for name, want := range map[string]string{"test killed": "SIGKILL", "test crash": "crashed"} {
		got := attempt{name: name}.inChild()
		if got.Allowed || got.Errno != want || got.Step != "" {
			t.Errorf("%s: got %+v, want denied by %s", name, got, want)
		}
	}
}

// The children of TestChildThatDiesIsDenied end as a seccomp filter ends a
// process: killed outright, or by a SIGSYS that the Go runtime dies of.
func init() {
	if len(os.Args) != 2 {
		return
	}
	switch os.Args[1] {
	case "test killed":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case "test crash":
		_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSYS)
		select {}
	}
}

func TestActsOnOpen(t *testing.T) {
	for name, want := range map[string]bool{
		"watchdog": true, "watchdog0": true, "st0": true, "nst1m": true,
		"stdin": false, "null": false, "sda": false, "status": false, "kvm": false,
	} {
		if actsOnOpen(name) != want {
			t.Errorf("%s: %v, want %v", name, !want, want)
		}
	}
}

func TestWritableIsBoundedAndWritesNothing(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/f"
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/ro", []byte("x"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	w := writable(dir)
	if got, _ := json.Marshal(w); w.Files != 1 || w.Writable != 1 || len(w.Paths) != 1 || w.Paths[0] != file {
		t.Errorf("got %s", got)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Errorf("file now %q, %v", b, err)
	}
}
