package oci

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/inside"
)

// A machine that joins a uts namespace has its names.
func TestNamesOf(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("entering a namespace takes root; CI runs this as root")
	}
	path := make(chan string)
	inside.OnThread(func() {
		if unix.Unshare(unix.CLONE_NEWUTS) != nil || unix.Sethostname([]byte("pod")) != nil {
			close(path)
			return
		}
		path <- fmt.Sprintf("/proc/%d/task/%d/ns/uts", os.Getpid(), unix.Gettid())
		<-path
	})
	n, err := namesOf(<-path)
	close(path)
	must(t, err)
	s := &specs.Spec{}
	n.give(s)
	if s.Hostname != "pod" || s.Domainname != "" {
		t.Errorf("%+v gives %q, %q", n, s.Hostname, s.Domainname)
	}
	s.Hostname = "own"
	n.give(s)
	if s.Hostname != "own" {
		t.Errorf("the bundle's own name became %q", s.Hostname)
	}
	if _, err := namesOf("/proc/self/ns/net"); err == nil {
		t.Error("a network namespace is no uts namespace")
	}
}

// userID is who TestGuestUser runs the tests named TestUser as.
const userID = 54321

func TestGuestUser(t *testing.T) {
	if *kernelFlag == "" {
		t.Skip("TestMachine runs it in the lab")
	}
	must(t, os.Chmod("/dev/kvm", 0o666)) // as distributions let users in, by a group
	dir, err := os.MkdirTemp("/tmp", "duplex-user-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chown(dir, userID, userID))
	copies := []string{filepath.Join(dir, "oci.test"), filepath.Join(dir, "kernel"), filepath.Join(dir, "initrd")}
	for i, from := range []string{"/proc/self/exe", *kernelFlag, *initrdFlag} {
		data, err := os.ReadFile(from)
		must(t, err)
		must(t, os.WriteFile(copies[i], data, 0o755))
	}
	run := func(test string) {
		cmd := exec.Command(copies[0], "-test.run=^"+test+"$", "-test.v", "-test.timeout=5m", "-kernel="+copies[1], "-initrd="+copies[2])
		cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "TMPDIR=" + dir}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: userID, Gid: userID}}
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS: "+test+" ")) {
			t.Errorf("%v\n%s", err, out)
		}
	}
	run("TestUserMachine")
	const limit = "/proc/sys/user/max_user_namespaces"
	before, err := os.ReadFile(limit)
	must(t, err)
	must(t, os.WriteFile(limit, []byte("0"), 0))
	defer func() { must(t, os.WriteFile(limit, before, 0)) }()
	run("TestUserForbidden")
}

// userBundle is machineBundle, for TestGuestUser's user: its root is he.
func userBundle(t *testing.T, args ...string) *bundle {
	t.Helper()
	if os.Geteuid() != userID {
		t.Skip("TestGuestUser runs it in the lab")
	}
	b := machineBundle(t, args...)
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: userID, Size: 1}}
	b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = ids, ids
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	for i := range b.spec.Mounts { // of a group that he does not have
		b.spec.Mounts[i].Options = slices.DeleteFunc(b.spec.Mounts[i].Options, func(o string) bool { return o == "gid=5" })
	}
	return b
}

// A user has microVMs like root's, by a user namespace for their files.
func TestUserMachine(t *testing.T) {
	b := userBundle(t, "wait")
	data := filepath.Join(b.dir, "data")
	must(t, os.Mkdir(data, 0o700))
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: data, Options: []string{"bind"}})
	c := b.create(t)
	must(t, c.Start(t.Context()))
	c, err := Open(b.root, c.ID, false)
	must(t, err)
	status, err := c.Exec(t.Context(), ExecOptions{Process: c.ExecProcess([]string{"/bin/work", "write", "/data/new"})})
	if status != 0 || err != nil {
		t.Errorf("write: %d, %v", status, err)
	}
	if text, err := os.ReadFile(filepath.Join(data, "new")); string(text) != "x" {
		t.Errorf("what the container wrote: %q, %v", text, err)
	}
	must(t, c.Kill(unix.SIGKILL, false))
	if end, err := waitFor(c.Pid, nil); err != nil || end != 137 {
		t.Errorf("ended with %d, %v", end, err)
	}

	// What takes more than a user has is refused by name.
	shares := uint64(512)
	for want, change := range map[string]func(*specs.Linux){
		"CAP_SYS_ADMIN": func(l *specs.Linux) {
			i := slices.IndexFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
			l.Namespaces[i].Path = "/proc/self/ns/net"
		},
		"make the cgroup": func(l *specs.Linux) {
			l.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &shares}}
		},
	} {
		b := userBundle(t, "wait")
		change(b.spec.Linux)
		b.save(t)
		b.refused(t, b.options(t, nil), want)
		b.nothingLeft(t)
	}
}

func TestUserForbidden(t *testing.T) {
	b := userBundle(t, "wait")
	b.save(t)
	b.refused(t, b.options(t, nil), "as many namespaces as this host allows")
	b.nothingLeft(t)
}
