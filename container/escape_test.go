package container

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/seccomp"
	"github.com/duplex-run/duplex/internal/testutil/attack"
	"github.com/duplex-run/duplex/internal/workload"
)

// Each test here is a published escape from a container, as far as `run` has what
// it goes by: it makes the attack's set-up and fails when the attack works. Package
// oci has those of bundles; docs/threat-model.md has the table. TestAsUser runs
// them without root.

// layered runs work in tree with l, and returns what it prints.
func layered(t *testing.T, l Layers, spec workload.Spec) (string, error) {
	t.Helper()
	var out strings.Builder
	exit, err := Runner{Layers: l}.Run(t.Context(), spec, workload.Stdio{Out: &out, Err: &out}, nil)
	if err == nil && exit.Status() != 0 {
		err = fmt.Errorf("status %d", exit.Status())
	}
	return out.String(), err
}

func attacked(t *testing.T, l Layers, args ...string) string {
	t.Helper()
	out, err := layered(t, l, newSpec(newTree(t), args...))
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return out
}

// has checks that out has every one of want, and none of never.
func has(t *testing.T, out string, want []string, never ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in\n%s", w, out)
		}
	}
	for _, n := range never {
		if strings.Contains(out, n) {
			t.Errorf("%q in\n%s", n, out)
		}
	}
}

// CVE-2019-5736: the workload writes to the executable of duplex's processes.
func TestCVE2019_5736(t *testing.T) {
	// Its not being dumpable, Landlock and AppArmor keep it from looking; where none
	// does there is still nothing to write to.
	for caps, l := range map[string]Layers{
		"": {}, "SYS_PTRACE": {AddCaps: []string{"SYS_PTRACE"}, NoLandlock: true, AppArmor: UnconfinedAppArmor},
	} {
		tree := newTree(t)
		must(t, os.Remove(tree+"/bin/work")) // a link to the test: not the attacker's
		must(t, copyFile("/proc/self/exe", tree+"/bin/work", 0o755))
		out, err := layered(t, l, newSpec(tree, "overwrite"))
		must(t, err)
		want := "open: permission denied"
		if caps != "" {
			want = "found an executable"
		}
		has(t, out, []string{want}, "overwrite: <nil>") // TestSealed and TestReadOnlyProgram have what is executed elsewhere
	}
	tree := newTree(t)
	before, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(tree+"/script", []byte("#!/proc/self/exe\n"), 0o755))
	for _, argv := range []string{"/script", "/proc/self/exe"} {
		spec := newSpec(tree)
		spec.Argv = []string{argv, "-test.run=^$"}
		_, err := layered(t, Layers{}, spec)
		t.Log(argv, err)
	}
	if after, err := os.ReadFile("/proc/self/exe"); err != nil || string(after) != string(before) {
		t.Error("the host's executable was changed")
	}
}

// CVE-2019-16884: a volume covers procfs, which a container's set-up writes to.
func TestCVE2019_16884(t *testing.T) {
	for _, guest := range []string{"/proc", "/proc/self/attr", "/link/kernel"} {
		tree, fake := newTree(t), t.TempDir()
		must(t, os.Symlink("/proc/sys", tree+"/link"))
		spec := newSpec(tree, "exit", "0")
		spec.Volumes = []workload.Volume{{Host: fake, Guest: guest}}
		if out, err := layered(t, Layers{}, spec); err == nil || !strings.Contains(err.Error(), "proc") {
			t.Errorf("a volume on %s: %v %s", guest, err, out)
		}
	}
}

// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc of the image is a link.
func TestCVE2019_19921(t *testing.T) {
	for _, to := range []string{"/evil", "evil", "../../../../../../../.." + t.TempDir(), "/proc/../evil"} {
		tree := newTree(t)
		must(t, os.Mkdir(tree+"/evil", 0o755))
		must(t, os.Symlink(to, tree+"/proc"))
		if out, err := layered(t, Layers{}, newSpec(tree, "masked")); err == nil {
			t.Errorf("/proc -> %s: it ran: %s", to, out)
		}
	}
	has(t, attacked(t, Layers{}, "masked"), []string{"/proc interrupts is null: true", "/proc sys is read-only procfs: true"})
}

// CVE-2020-15257: abstract sockets of the host's services answer.
func TestCVE2020_15257(t *testing.T) {
	name := fmt.Sprintf("duplex-test-%d-%s", os.Getpid(), testTag)
	l, err := net.Listen("unix", "@"+name)
	must(t, err)
	defer func() { _ = l.Close() }()
	for _, mode := range []NetworkMode{"", NetworkHost} { // there it is Landlock that denies it
		var out strings.Builder
		_, err := Runner{Network: Network{Mode: mode}}.Run(t.Context(), newSpec(newTree(t), "abstract", name), workload.Stdio{Out: &out, Err: &out}, nil)
		must(t, err)
		has(t, out.String(), []string{"own socket: <nil>"}, "host's socket: <nil>")
	}
}

// CVE-2021-30465, CVE-2024-45310: a volume's place is in another volume, and is
// swapped for a symbolic link to the host meanwhile.
func TestCVE2021_30465(t *testing.T) {
	outside, unharmed := attack.Bait(t)
	tree, volume, source := newTree(t), t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(volume, "a", "victim"), 0o755))
	must(t, os.Symlink(outside, filepath.Join(volume, "link")))
	attack.Swap(t, filepath.Join(volume, "a"), filepath.Join(volume, "link"))
	i := 0
	attack.Some(t, attack.Races(), func() error {
		i++
		spec := newSpec(tree, "mountinfo")
		spec.Volumes = []workload.Volume{{Host: volume, Guest: "/data"}, {Host: source, Guest: "/data/a/victim"},
			{Host: source, Guest: fmt.Sprintf("/data/a/made%d/deep", i)}}
		out, err := layered(t, Layers{}, spec)
		if unharmed(); err == nil {
			has(t, out, []string{" /data/", "/victim "}, outside)
		}
		return err
	})
}

// CVE-2022-0492: release_agent of cgroup v1.
func TestCVE2022_0492(t *testing.T) {
	for name, l := range map[string]Layers{
		"default": {}, "no filter": {NoSeccomp: true}, "no Landlock": {NoSeccomp: true, NoLandlock: true}, "the host's cgroups": {HostCgroup: true},
	} {
		out := attacked(t, l, "releaseagent")
		has(t, out, []string{"write: ", "mount: "}, "write: <nil>", "group: <nil>", "notify: <nil>")
		if strings.Contains(out, "namespaces: <nil>") && !l.NoSeccomp {
			t.Errorf("%s: a user namespace of its own:\n%s", name, out)
		}
	}
}

// CVE-2022-24769, CVE-2022-27649, CVE-2022-27650: inheritable capabilities.
func TestCVE2022_24769(t *testing.T) {
	if os.Geteuid() != 0 {
		has(t, attacked(t, Layers{}, "status"), []string{"CapInh:\t0000000000000000", "CapAmb:\t0000000000000000"})
		return // the host lets nobody else make the file
	}
	tree := newTree(t)
	must(t, copyFile("/proc/self/exe", tree+"/bin/cap", 0o755))
	must(t, unix.Setxattr(tree+"/bin/cap", "security.capability", attack.Inheritable(seccomp.DefaultCapSet()), 0))
	for _, l := range []Layers{{}, {NewPrivileges: true}} {
		out, err := layered(t, l, newSpec(tree, "become", "/bin/cap", "1000"))
		must(t, err)
		has(t, out, []string{"Uid:\t1000", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000"})
	}
}

// CVE-2024-21626: descriptors of the host.
func TestCVE2024_21626(t *testing.T) {
	numbers := attack.Leak(t)
	for line := range strings.Lines(attacked(t, Layers{}, "descriptors")) {
		if strings.HasSuffix(strings.TrimSpace(line), "true") {
			t.Errorf("an open directory: %s", line)
		}
	}
	tree := newTree(t)
	for _, fd := range numbers {
		path := fmt.Sprintf("/proc/self/fd/%d", fd)
		must(t, os.RemoveAll(tree+"/link"))
		must(t, os.Symlink(path, tree+"/link"))
		for _, cwd := range []string{path, path + "/..", "/link"} {
			spec := newSpec(tree, "pwd")
			spec.Cwd = cwd
			if out, err := layered(t, Layers{}, spec); err == nil && !strings.HasPrefix(out, "/ <nil> <nil>") {
				t.Errorf("%s as the working directory: %s", cwd, out)
			}
		}
	}
}

// CVE-2025-31133, CVE-2025-52565, CVE-2026-41579, CVE-2026-47766: what the image
// has in /dev, or as /dev.
func TestCVE2025_31133(t *testing.T) {
	outside, unharmed := attack.Bait(t)
	for name, put := range map[string]func(dev string) error{
		"null is a link": func(d string) error {
			return errors.Join(os.Mkdir(d, 0o755), os.Symlink("/proc/sys/kernel/core_pattern", d+"/null"))
		},
		"console is a link": func(d string) error { return errors.Join(os.Mkdir(d, 0o755), os.Symlink(outside+"/new", d+"/console")) },
		"pts is a link":     func(d string) error { return errors.Join(os.Mkdir(d, 0o755), os.Symlink(outside, d+"/pts")) },
		"dev is a link":     func(d string) error { return os.Symlink(outside, d) },
		"dev leads up":      func(d string) error { return os.Symlink("../../../../../../../../../../.."+outside, d) },
	} {
		for _, tty := range []bool{false, true} {
			tree := newTree(t)
			must(t, put(tree+"/dev"))
			spec := newSpec(tree, "masked")
			spec.TTY = tty
			out, err := layered(t, Layers{}, spec)
			if err == nil && strings.Count(out, "true") != 2 {
				t.Errorf("%s: it ran without its masks: %s", name, out)
			}
			if err != nil && !strings.HasPrefix(name, "dev") {
				t.Errorf("%s: %v", name, err) // /dev is a tmpfs: nothing of it is in the way
			}
			unharmed()
		}
	}
}

// A volume is no place to make a device usable: docker's device cgroup stops
// that, nodev here.
func TestDeviceInVolume(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o777))
	spec := newSpec(newTree(t), "mknod", "/data")
	spec.Volumes = []workload.Volume{{Host: dir, Guest: "/data"}}
	out, err := layered(t, Layers{}, spec)
	must(t, err)
	has(t, out, []string{"file: <nil>", "move: <nil> <nil>", "open:"}, "open: <nil>")
}
