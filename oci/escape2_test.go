package oci

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/testutil/attack"
)

// CVE-2024-21626: a descriptor of the host is open when the container's working
// directory is entered or its program found, or when the program runs.
func TestCVE2024_21626(t *testing.T) {
	numbers := attack.Leak(t)
	b := likeDocker(t, "descriptors")
	out := b.output(t)
	for line := range strings.Lines(out) {
		if strings.HasSuffix(strings.TrimSpace(line), "true") {
			t.Errorf("an open directory: %s", line)
		}
	}
	contains(t, out, "0 /dev/null", "2 ")
	wait := likeDocker(t, "wait")
	c := wait.create(t)
	must(t, c.Start(t.Context()))
	for _, fd := range numbers {
		path := fmt.Sprintf("/proc/self/fd/%d", fd)
		must(t, os.RemoveAll(b.rootfs("link")))
		must(t, os.Symlink(path, b.rootfs("link")))
		for _, cwd := range []string{path, path + "/..", "/link", "/link/../../.."} {
			b.spec.Process.Cwd = cwd
			b.spec.Process.Args = []string{"/bin/work", "pwd"}
			if status, out, err := b.run(t); err == nil && (status != 0 || !strings.HasPrefix(out, "/ <nil> <nil>")) {
				t.Errorf("%s as the working directory: %d %s", cwd, status, out)
			}
		}
		b.spec.Process.Cwd = "/"
		b.spec.Process.Args = []string{path + "/bin/sh", "-c", "exit 77"} // a file that only the host has
		if status, _, err := b.run(t); err == nil {
			t.Errorf("%s is a program: %d", b.spec.Process.Args[0], status)
		}
		p := c.ExecProcess([]string{"/bin/work", "pwd"})
		p.Cwd = path
		if status, err := c.Exec(t.Context(), ExecOptions{Process: p}); err == nil {
			t.Errorf("exec in %s: %d", path, status)
		}
	}
}

// CVE-2024-45310: the directories that a mount point lacks are made through a
// symbolic link, on the host.
func TestCVE2024_45310(t *testing.T) {
	outside, unharmed := attack.Bait(t)
	b := likeDocker(t, "exit", "0")
	volume := t.TempDir()
	must(t, os.Mkdir(filepath.Join(volume, "a"), 0o755))
	must(t, os.Symlink(outside, filepath.Join(volume, "link")))
	file := filepath.Join(b.dir, "file")
	must(t, os.WriteFile(file, nil, 0o644))
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: volume},
		specs.Mount{Destination: "/data/a/made/deep", Type: "tmpfs"},
		specs.Mount{Destination: "/data/a/file", Type: "bind", Source: file})
	attack.Swap(t, filepath.Join(volume, "a"), filepath.Join(volume, "link"))
	attack.Some(t, attack.Races(), func() error {
		_, _, err := b.run(t)
		unharmed()
		return err
	})
}

// CVE-2025-31133: /dev/null of the container is another file when paths are
// masked with it, so that a path is left open, or another one opened.
func TestCVE2025_31133(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"link to procfs":  func(p string) error { return os.Symlink("/proc/sys/kernel/core_pattern", p) },
		"link to nothing": func(p string) error { return os.Symlink("/nothing", p) },
		"a file":          func(p string) error { return os.WriteFile(p, nil, 0o666) },
		"another device":  func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
	} {
		t.Run(name, func(t *testing.T) {
			b := likeDocker(t, "masked")
			b.without("/dev")
			must(t, os.Mkdir(b.rootfs("dev"), 0o755))
			must(t, put(b.rootfs("dev", "null")))
			if _, out, err := b.run(t); err == nil {
				t.Errorf("it ran: %s", out)
			}
		})
	}
	t.Run("race", func(t *testing.T) {
		b := likeDocker(t, "masked")
		b.without("/dev")
		must(t, os.Mkdir(b.rootfs("dev"), 0o755))
		must(t, unix.Mknod(b.rootfs("dev", "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(t, os.Symlink("/proc/sys/kernel/core_pattern", b.rootfs("dev", "link")))
		attack.Swap(t, b.rootfs("dev", "null"), b.rootfs("dev", "link"))
		attack.Some(t, attack.Races(), func() error { return neverUnmasked(t, b) })
	})
}

// CVE-2025-52565, CVE-2026-88264: /dev/console is bound where a symbolic link of
// the image leads, or from something that is no terminal.
func TestCVE2025_52565(t *testing.T) {
	outside, unharmed := attack.Bait(t)
	for name, change := range map[string]func(*bundle) error{
		"nothing":                       func(*bundle) error { return nil },
		"console is a link to procfs":   func(b *bundle) error { return os.Symlink("/proc/sys/kernel/core_pattern", b.rootfs("dev", "console")) },
		"console is a link to the host": func(b *bundle) error { return os.Symlink(outside+"/new", b.rootfs("dev", "console")) },
		"pts is a link":                 func(b *bundle) error { return os.Symlink(outside, b.rootfs("dev", "pts")) },
		"ptmx is a file": func(b *bundle) error {
			return os.WriteFile(b.rootfs("dev", "ptmx"), nil, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := likeDocker(t, "masked")
			b.without("/dev") // but for its terminals
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/dev/pts", Type: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}})
			must(t, os.MkdirAll(b.rootfs("dev"), 0o755))
			must(t, change(b))
			b.spec.Process.Terminal = true
			b.spec.Process.Args = []string{"/bin/work", "write", "/proc/sys/kernel/core_pattern"}
			b.save(t)
			o := b.options(t, nil)
			var text string
			read := make(chan struct{})
			close(read)
			o.Terminal = func(master *os.File) {
				read = make(chan struct{})
				go func() {
					defer close(read)
					all, _ := io.ReadAll(master) // to its end: closed before, it hangs up
					text = string(all)
					_ = master.Close()
				}()
			}
			status, err := Run(t.Context(), RunOptions{CreateOptions: o})
			<-read
			if t.Log(err); name == "nothing" && err != nil || err == nil && (status != 0 || !strings.Contains(text, "read-only")) {
				t.Errorf("%v, status %d: %q", err, status, text)
			}
			unharmed()
			b.nothingLeft(t)
		})
	}
}

// CVE-2025-52881: writes to procfs, of labels and of sysctls, go to a file that
// the container put there.
func TestCVE2025_52881(t *testing.T) {
	t.Run("through a link", func(t *testing.T) {
		b := likeDocker(t, "cat", "/proc/sys/net/ipv4/ip_default_ttl")
		fakeTree(t, filepath.Join(b.dir, "fake"))
		must(t, os.Symlink("/proc/sys/net", b.rootfs("link")))
		b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/link/ipv4", Type: "bind", Source: filepath.Join(b.dir, "fake/proc/sys/net/ipv4")})
		if _, out, err := b.run(t); err == nil {
			t.Errorf("it ran: %s", out)
		}
		fakesUntouched(t, filepath.Join(b.dir, "fake"))
	})
	t.Run("over procfs", func(t *testing.T) { // by a container that may mount
		b := likeDocker(t, "fakeproc")
		c := b.spec.Process.Capabilities
		c.Bounding, c.Effective, c.Permitted = append(c.Bounding, "CAP_SYS_ADMIN"), append(c.Effective, "CAP_SYS_ADMIN"), append(c.Permitted, "CAP_SYS_ADMIN")
		b.spec.Linux.Seccomp = nil
		b.save(t)
		out, err := os.CreateTemp(t.TempDir(), "out")
		must(t, err)
		evil, err := Create(t.Context(), b.options(t, out))
		must(t, err)
		defer func() { must(t, evil.Delete(t.Context(), true, nil)); b.nothingLeft(t) }()
		must(t, evil.Start(t.Context()))
		await(t, out, "ready <nil>")
		inside := fmt.Sprintf("/proc/%d/root", evil.Pid)
		p := evil.ExecProcess([]string{"/bin/work", "exit", "0"})
		p.ApparmorProfile = "duplex-test"
		if status, err := evil.Exec(t.Context(), ExecOptions{Process: p}); err == nil {
			t.Errorf("exec ran without its profile: %d", status)
		}
		fakesUntouched(t, inside)
		// A container that joins that mount namespace, and has a sysctl.
		v := likeDocker(t, "exit", "0")
		v.namespacePath(specs.MountNamespace, fmt.Sprintf("/proc/%d/ns/mnt", evil.Pid))
		v.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		_, _, err = v.run(t)
		t.Log("joined:", err)
		fakesUntouched(t, inside)
	})
}

// CVE-2026-41579 (runc), CVE-2026-47766 (crun): /dev of the image is a symbolic
// link, and what the runtime makes in /dev is made, or removed, on the host.
func TestCVE2026_41579(t *testing.T) { devIsALink(t, func(dir string) string { return dir }) }

func TestCVE2026_47766(t *testing.T) {
	devIsALink(t, func(dir string) string { return "../../../../../../../../../../.." + dir })
	outside, unharmed := attack.Bait(t)
	b := likeDocker(t, "masked") // and as a race
	b.without("/dev")
	must(t, os.Mkdir(b.rootfs("dev"), 0o755))
	must(t, os.Symlink(outside, b.rootfs("link")))
	attack.Swap(t, b.rootfs("dev"), b.rootfs("link"))
	for range attack.Races() {
		_, _, _ = b.run(t) // whether it fails or not
		unharmed()
	}
}

func devIsALink(t *testing.T, target func(string) string) {
	t.Helper()
	for _, terminal := range []bool{false, true} {
		outside, unharmed := attack.Bait(t)
		b := likeDocker(t, "exit", "0")
		b.without("/dev")
		must(t, os.Symlink(target(outside), b.rootfs("dev")))
		b.spec.Process.Terminal = terminal
		b.save(t)
		o := b.options(t, nil)
		o.Terminal = func(f *os.File) { _ = f.Close() }
		_, err := Run(t.Context(), RunOptions{CreateOptions: o})
		t.Log(err)
		unharmed()
		b.nothingLeft(t)
	}
}
