package oci

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	profile "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/seccomp"
	"github.com/duplex-run/duplex/internal/testutil/attack"
)

// Each test here is a published escape from a container: it makes the attack's
// set-up and fails when the attack works. docs/threat-model.md has the table.

// likeDocker is a bundle as docker makes them: its capabilities and its filter.
func likeDocker(t *testing.T, args ...string) *bundle {
	t.Helper()
	b := newBundle(t, args...)
	caps := seccomp.Names(seccomp.DefaultCapSet())
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	b.spec.Process.NoNewPrivileges = false
	var err error
	b.spec.Linux.Seccomp, err = profile.GetDefaultProfile(b.spec)
	must(t, err)
	must(t, os.Mkdir(filepath.Join(b.dir, "rootfs", "tmp"), 0o777))
	return b
}

// rootfs is a path in the bundle's rootfs.
func (b *bundle) rootfs(name ...string) string {
	return filepath.Join(append([]string{b.dir, "rootfs"}, name...)...)
}

// without takes the mount on dest out of the bundle.
func (b *bundle) without(dest string) {
	var keep []specs.Mount
	for _, m := range b.spec.Mounts {
		if m.Destination != dest && !strings.HasPrefix(m.Destination, dest+"/") {
			keep = append(keep, m)
		}
	}
	b.spec.Mounts = keep
}

// namespacePath has the container join a namespace.
func (b *bundle) namespacePath(kind specs.LinuxNamespaceType, path string) {
	for i := range b.spec.Linux.Namespaces {
		if b.spec.Linux.Namespaces[i].Type == kind {
			b.spec.Linux.Namespaces[i].Path = path
		}
	}
}

// CVE-2019-5736: a container writes to the runtime's executable through
// /proc/PID/exe, of a process that enters it, or that the image executes.
func TestCVE2019_5736(t *testing.T) {
	for name, tt := range map[string]struct {
		landlock string
		caps     []string
		want     string // where it is kept from looking, and where not
	}{
		"by default":           {"", nil, "open: permission denied"},
		"without Landlock":     {"off", nil, "open: permission denied"},
		"by one that may look": {"off", []string{"CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"}, "found an executable"},
	} {
		t.Run("joined "+name, func(t *testing.T) {
			b := likeDocker(t, "overwrite", "wait")
			must(t, os.Remove(b.rootfs("bin", "work"))) // a link to the test: not the attacker's
			self, err := os.ReadFile("/proc/self/exe")
			must(t, err)
			must(t, os.WriteFile(b.rootfs("bin", "work"), self, 0o755))
			c := b.spec.Process.Capabilities
			c.Bounding, c.Effective, c.Permitted = append(c.Bounding, tt.caps...), append(c.Effective, tt.caps...), append(c.Permitted, tt.caps...)
			b.spec.Annotations = map[string]string{LandlockAnnotation: tt.landlock}
			if tt.landlock == "" {
				b.spec.Annotations = nil
			}
			b.save(t)
			out, err := os.CreateTemp(t.TempDir(), "out")
			must(t, err)
			hunter, err := Create(t.Context(), b.options(t, out))
			must(t, err)
			defer func() { must(t, hunter.Delete(context.Background(), true, nil)); b.nothingLeft(t) }()
			b.namespacePath(specs.PIDNamespace, fmt.Sprintf("/proc/%d/ns/pid", hunter.Pid))
			b.save(t)
			prey, err := Create(t.Context(), b.options(t, nil)) // and not started: still duplex's program
			must(t, err)
			defer func() { must(t, prey.Delete(context.Background(), true, nil)) }()
			must(t, hunter.Start(t.Context()))
			hunter.Close()
			await(t, out, tt.want)
			// What is no longer executed can be written to. A hunter that may not look ends
			// at once, and with it all in its namespace.
			if err := prey.Kill(unix.SIGKILL, false); !errors.Is(err, errNotRunning) {
				must(t, err)
			}
			await(t, out, "done")
			for _, c := range []*Container{prey, hunter} { // the first has to be reaped before the second can end
				_, err = waitFor(c.Pid, nil)
				must(t, err)
			}
			text, err := os.ReadFile(out.Name())
			must(t, err)
			if strings.Contains(string(text), "overwrite: <nil>") || strings.Contains(string(text), "fixed: false") {
				t.Errorf("written to:\n%s", text)
			}
		})
	}
	t.Run("executed", func(t *testing.T) {
		b := likeDocker(t)
		must(t, os.WriteFile(b.rootfs("script"), []byte("#!/proc/self/exe\n"), 0o755))
		before, err := os.Stat("/proc/self/exe")
		must(t, err)
		for _, path := range []string{"/script", "/proc/self/exe"} {
			b.spec.Process.Args = []string{path}
			if _, _, err := b.run(t); err != nil {
				t.Log(path, err)
			}
		}
		after, err := os.Stat("/proc/self/exe")
		must(t, err)
		if !after.ModTime().Equal(before.ModTime()) || after.Size() != before.Size() {
			t.Error("the host's executable was changed")
		}
	})
}

// CVE-2019-16884, CVE-2023-28642: with something else on /proc, the label is
// written to a file of the image's, and the container runs without.
func TestCVE2019_16884(t *testing.T) { labelNotLost(t, "/proc") }

func TestCVE2023_28642(t *testing.T) {
	for _, elsewhere := range []bool{false, true} { // procfs is mounted on the link, or not there at all
		b := likeDocker(t, "exit", "0")
		fakeTree(t, b.rootfs("fake"))
		must(t, os.Symlink("fake/proc", b.rootfs("proc")))
		want := "symbolic link"
		if elsewhere {
			b.without("/proc")
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/elsewhere", Type: "proc", Source: "proc"})
			want = "AppArmor"
		}
		b.spec.Process.ApparmorProfile = "duplex-test"
		if _, _, err := b.run(t); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		fakesUntouched(t, b.rootfs("fake"))
	}
	labelNotLost(t, "/proc/self/attr")
}

// fakeTree makes the files that labels and parameters are written to.
func fakeTree(t *testing.T, dir string) {
	t.Helper()
	for _, f := range attack.Fakes {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, f), nil, 0o666))
	}
}

func fakesUntouched(t *testing.T, dir string) {
	t.Helper()
	for _, f := range attack.Fakes {
		if b, err := os.ReadFile(filepath.Join(dir, f)); err != nil || len(b) > 0 {
			t.Errorf("%s: %q, %v", f, b, err)
		}
	}
}

// labelNotLost runs a container with an AppArmor profile that no kernel has and
// a false procfs on dest.
func labelNotLost(t *testing.T, dest string) {
	t.Helper()
	for _, kind := range []string{"bind", "tmpfs"} {
		b := likeDocker(t, "exit", "0")
		fakeTree(t, filepath.Join(b.dir, "fake"))
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: dest, Type: kind, Source: filepath.Join(b.dir, "fake", dest)})
		b.spec.Process.ApparmorProfile = "duplex-test"
		if _, _, err := b.run(t); err == nil || !strings.Contains(err.Error(), "procfs") {
			t.Errorf("%s on %s: %v, want that procfs is in the way", kind, dest, err)
		}
		fakesUntouched(t, filepath.Join(b.dir, "fake"))
	}
}

// CVE-2019-19921, CVE-2023-27561: /proc of the image is a symbolic link, or
// becomes one meanwhile, and procfs is mounted where its masks are not.
func TestCVE2019_19921(t *testing.T) {
	t.Run("link", func(t *testing.T) {
		for _, to := range []string{"/evil", "evil", "../../../../../../../../" + t.TempDir(), "/proc/../evil"} {
			b := likeDocker(t, "masked")
			must(t, os.MkdirAll(b.rootfs("evil"), 0o755))
			must(t, os.Symlink(to, b.rootfs("proc")))
			if _, out, err := b.run(t); err == nil {
				t.Errorf("/proc -> %s: it ran: %s", to, out)
			}
		}
	})
	t.Run("race", func(t *testing.T) {
		b := likeDocker(t, "masked", "/link", "/evil")
		must(t, os.MkdirAll(b.rootfs("evil"), 0o755))
		must(t, os.Mkdir(b.rootfs("proc"), 0o755))
		must(t, os.Symlink("evil", b.rootfs("link")))
		attack.Swap(t, b.rootfs("proc"), b.rootfs("link"))
		attack.Some(t, attack.Races(), func() error { return neverUnmasked(t, b) })
	})
}

func TestCVE2023_27561(t *testing.T) { // the race, in a volume that two containers share
	b := likeDocker(t, "masked", "/volume/a", "/volume/link", "/volume/real")
	volume := t.TempDir()
	must(t, os.Mkdir(filepath.Join(volume, "a"), 0o755))
	must(t, os.Mkdir(filepath.Join(volume, "real"), 0o755))
	must(t, os.Symlink("real", filepath.Join(volume, "link")))
	must(t, os.Symlink("volume/a", b.rootfs("proc")))
	b.spec.Mounts = append([]specs.Mount{{Destination: "/volume", Type: "bind", Source: volume}}, b.spec.Mounts...)
	attack.Swap(t, filepath.Join(volume, "a"), filepath.Join(volume, "link"))
	for range attack.Races() {
		if neverUnmasked(t, b) == nil {
			t.Error("it ran, with procfs behind a link")
		}
	}
}

// neverUnmasked runs "masked": a container that starts has its masks.
func neverUnmasked(t *testing.T, b *bundle) error {
	t.Helper()
	_, out, err := b.run(t)
	if err == nil && (strings.Contains(out, "false") || !strings.Contains(out, "looked")) {
		t.Fatalf("it ran without its masks: %s", out)
	}
	return err
}

// CVE-2020-15257: in the host's network namespace, a container connects to the
// abstract sockets of the host's services.
func TestCVE2020_15257(t *testing.T) {
	name := fmt.Sprintf("duplex-test-%d", os.Getpid())
	l, err := net.Listen("unix", "@"+name)
	must(t, err)
	defer func() { _ = l.Close() }()
	for _, host := range []bool{false, true} {
		b := likeDocker(t, "abstract", name)
		if host {
			b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[:0]
			for _, n := range Example().Linux.Namespaces {
				if n.Type != specs.NetworkNamespace {
					b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, n)
				}
			}
		}
		out := b.output(t)
		if contains(t, out, "own socket: <nil>"); strings.Contains(out, "host's socket: <nil>") {
			t.Errorf("with the host's network %v: the host's socket answered", host)
		}
	}
}

// CVE-2021-30465: a mount point that is swapped for a symbolic link meanwhile
// leads a mount out of the rootfs.
func TestCVE2021_30465(t *testing.T) {
	outside, unharmed := attack.Bait(t)
	b := likeDocker(t, "exit", "0")
	volume, source, log := t.TempDir(), t.TempDir(), filepath.Join(b.dir, "log")
	must(t, os.MkdirAll(filepath.Join(volume, "a", "victim"), 0o755))
	must(t, os.Symlink(outside, filepath.Join(volume, "link")))
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: volume},
		specs.Mount{Destination: "/data/a/victim", Type: "bind", Source: source})
	// A hook that sees the mounts before the host's are gone.
	b.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat /proc/self/mountinfo >>" + log}}}}
	attack.Swap(t, filepath.Join(volume, "a"), filepath.Join(volume, "link"))
	attack.Some(t, attack.Races(), func() error {
		_, _, err := b.run(t)
		unharmed()
		return err
	})
	text, err := os.ReadFile(log)
	must(t, err)
	if strings.Contains(string(text), " "+outside) {
		t.Error("it was mounted on the host's directory")
	}
}

// CVE-2022-0492: a container writes to release_agent of a cgroup v1 hierarchy,
// which the host then executes.
func TestCVE2022_0492(t *testing.T) {
	for name, change := range map[string]func(*bundle){
		"as docker":        func(*bundle) {},
		"without a filter": func(b *bundle) { b.spec.Linux.Seccomp = nil },
		"with a rw cgroupfs": func(b *bundle) {
			for i, m := range b.spec.Mounts {
				if m.Type == "cgroup" {
					b.spec.Mounts[i].Options = []string{"rw"}
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := likeDocker(t, "releaseagent")
			change(b)
			out := b.output(t)
			contains(t, out, "write: ", "mount: ")
			for _, never := range []string{"write: <nil>", "group: <nil>", "notify: <nil>"} {
				if strings.Contains(out, never) {
					t.Errorf("cgroup v1 was written to:\n%s", out)
				}
			}
			if strings.Contains(out, "namespaces: <nil>") != (b.spec.Linux.Seccomp == nil) {
				t.Errorf("a user namespace of its own:\n%s", out)
			}
		})
	}
}

// CVE-2022-24769, CVE-2022-27649, CVE-2022-27650: the container's processes have
// inheritable capabilities, so that a file's are a user's.
func TestCVE2022_24769(t *testing.T) {
	b := likeDocker(t, "become", "/bin/cap", "1000")
	b.spec.Process.NoNewPrivileges = false
	data, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(b.rootfs("bin", "cap"), data, 0o755))
	must(t, unix.Setxattr(b.rootfs("bin", "cap"), "security.capability", attack.Inheritable(seccomp.DefaultCapSet()), 0))
	contains(t, b.output(t), "Uid:\t1000", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000")
}

func TestCVE2022_27649(t *testing.T) { inheritableOfExec(t, "CAP_SYS_PTRACE") } // podman's exec

func TestCVE2022_27650(t *testing.T) { inheritableOfExec(t, "CAP_NET_RAW") } // crun's exec --cap

func inheritableOfExec(t *testing.T, name string) {
	t.Helper()
	b := likeDocker(t, "wait")
	b.spec.Process.User.UID = 1000
	c := b.create(t)
	must(t, c.Start(t.Context()))
	p := c.ExecProcess([]string{"/bin/work", "status"})
	must(t, AddCapability(p, name))
	contains(t, execOutput(t, c, p), "CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "CapEff:\t0000000000000000")
}

// execOutput runs p in c and returns what it prints.
func execOutput(t *testing.T, c *Container, p *specs.Process) string {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	must(t, err)
	defer func() { _ = out.Close() }()
	status, err := c.Exec(t.Context(), ExecOptions{Process: p, Stdio: [3]*os.File{nil, out, out}})
	text, rerr := os.ReadFile(out.Name())
	if err != nil || rerr != nil || status != 0 {
		t.Fatalf("exec: status %d, %v, %v: %s", status, err, rerr, text)
	}
	return string(text)
}

// await reads f until it holds want.
func await(t *testing.T, f *os.File, want string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(f.Name())
		must(t, err)
		switch {
		case strings.Contains(string(text), want):
			return
		case time.Now().After(end):
			t.Fatal(errors.New("timed out"), string(text))
		}
	}
}
