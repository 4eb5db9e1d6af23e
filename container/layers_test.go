package container

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/apparmor"
	"github.com/duplex-run/duplex/container/seccomp"
	"github.com/duplex-run/duplex/internal/confine"
)

// facts runs "facts" and returns what it says, by name.
func facts(t *testing.T, l Layers) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(attacked(t, l, "facts")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		out[name] = value
	}
	return out
}

// Each layer can be left out alone: what it stops changes, and nothing else.
func TestLayersOneByOne(t *testing.T) {
	root := os.Geteuid() == 0
	normal := facts(t, Layers{})
	for name, tt := range map[string]struct {
		layers Layers
		change []string
		root   bool
	}{
		"pid":       {Layers{HostPID: true}, []string{"pid"}, true},
		"ipc":       {Layers{HostIPC: true}, []string{"ipc"}, false},
		"uts":       {Layers{HostUTS: true}, []string{"uts"}, false},
		"cgroup":    {Layers{HostCgroup: true}, []string{"cgroup"}, false},
		"seccomp":   {Layers{NoSeccomp: true}, []string{"seccomp", "unshare"}, false},
		"masks":     {Layers{NoMasks: true}, []string{"masked", "sys"}, false},
		"nnp":       {Layers{NewPrivileges: true}, []string{"nnp"}, false},
		"cap-add":   {Layers{AddCaps: []string{"sys_nice"}}, []string{"caps"}, false},
		"cap-drop":  {Layers{DropCaps: []string{"CAP_CHOWN"}}, []string{"caps"}, false},
		"user":      {Layers{UserNS: true}, []string{"user", "users"}, true},
		"all caps":  {Layers{DropCaps: []string{"ALL"}, AddCaps: []string{"CHOWN"}}, []string{"caps"}, false},
		"unchanged": {Layers{AddCaps: []string{"KILL"}}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.root && !root {
				if _, err := layered(t, tt.layers, newSpec(newTree(t), "facts")); (err == nil) == tt.layers.HostPID {
					t.Errorf("without root: %v", err)
				}
				return
			}
			got := facts(t, tt.layers)
			changed := map[string]bool{}
			for _, c := range tt.change {
				changed[c] = true
			}
			for k, v := range normal {
				fresh := strings.HasPrefix(v, k+":[") // a namespace: another one each time
				host, _ := os.Readlink("/proc/self/ns/" + k)
				switch same := got[k] == v; {
				case fresh && changed[k] && k != "user" && got[k] != host:
					t.Errorf("%s is %s, not the host's", k, got[k])
				case fresh && k == "user" && (got[k] == host) == (changed[k] || !root):
					t.Errorf("%s is %s, the host's is %s", k, got[k], host)
				case fresh && !changed[k] && k != "user" && got[k] == host:
					t.Errorf("%s is the host's", k)
				case !fresh && same == changed[k]:
					t.Errorf("%s is %q, was %q", k, got[k], v)
				}
			}
		})
	}
}

func TestLayersRefused(t *testing.T) {
	for _, l := range []Layers{{AddCaps: []string{"NONE"}}, {DropCaps: []string{"CAP_"}}, {AppArmor: "duplex-nothing"}, {UserNS: true, HostPID: true}} {
		if out, err := layered(t, l, newSpec(newTree(t), "facts")); err == nil {
			t.Errorf("%+v: %s", l, out)
		}
	}
	if got, err := (Layers{AddCaps: []string{"ALL"}, DropCaps: []string{"SYS_ADMIN"}}).resolve(); err == nil {
		if got.caps&(1<<21) != 0 || got.caps&seccomp.DefaultCapSet() == 0 {
			t.Errorf("%#x", got.caps)
		}
	}
}

// Landlock stops what no other layer does: a device node that needs no
// capability, of the kind that an overlay takes for a deleted file.
func TestLandlock(t *testing.T) {
	drop, stopped := []string{"MKNOD"}, "node: permission denied"
	if !whiteoutsAreNodes(t) {
		stopped = "node: <nil>" // the kernel has no Landlock, version 1, or takes them for files
	}
	has(t, attacked(t, Layers{DropCaps: drop}, "whiteout"), []string{stopped, "file: <nil>", "move: <nil>", "tty ioctl: <nil>"})
	has(t, attacked(t, Layers{DropCaps: drop, NoLandlock: true}, "whiteout"), []string{"node: <nil>", "file: <nil>"})
	has(t, attacked(t, Layers{DropCaps: drop, NoSeccomp: true}, "whiteout"), []string{"node: <nil>"}) // it may mount
}

// whiteoutsAreNodes reports whether this kernel's Landlock denies whiteouts where it
// denies device nodes: later ones take them for regular files.
func whiteoutsAreNodes(t *testing.T) bool {
	t.Helper()
	path, denied := filepath.Join(t.TempDir(), "whiteout"), make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			_, err = confine.Workload{Files: true, NoNodes: true}.Enter()
		}
		if err == nil {
			err = unix.Mknod(path, unix.S_IFCHR|0o600, 0)
		}
		denied <- err
	}()
	err := <-denied
	if err != nil && !errors.Is(err, unix.EACCES) {
		t.Fatal(err)
	}
	return err != nil
}

// Without a PID namespace nothing is left either, whether the workload ends or is
// killed.
func TestHostPIDLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: it is refused, as TestLayersOneByOne shows")
		return
	}
	spec := newSpec(newTree(t), "orphan")
	spec.Env = append(spec.Env, "DUPLEX_TEST_MARK="+testTag)
	_, err := layered(t, Layers{HostPID: true}, spec)
	must(t, err)
	spec = newSpec(newTree(t), "fork", "3")
	spec.Argv = []string{"work", "sleep"}
	spec.Env = append(spec.Env, "DUPLEX_TEST_MARK="+testTag)
	spec.Timeout = 300e6
	if out, err := layered(t, Layers{HostPID: true}, spec); err == nil || !strings.Contains(err.Error(), "124") {
		t.Errorf("%v %s", err, out)
	}
	if left := processes(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// AppArmor stops what no other layer is left to stop. The lab's kernel has it.
func TestAppArmor(t *testing.T) {
	l := Layers{NoMasks: true, NoSeccomp: true, NoLandlock: true}
	if !apparmor.Enabled() {
		if _, err := layered(t, Layers{AppArmor: "docker-default"}, newSpec(newTree(t), "facts")); err == nil || !strings.Contains(err.Error(), "no AppArmor") {
			t.Errorf("a profile on a kernel without AppArmor: %v", err)
		}
		return
	}
	if os.Geteuid() != 0 {
		return // another user may not write to that file in any case
	}
	has(t, attacked(t, l, "open", "/proc/sys/kernel/core_pattern"), []string{"permission denied", "duplex-default (enforce)"})
	l.AppArmor = UnconfinedAppArmor
	has(t, attacked(t, l, "open", "/proc/sys/kernel/core_pattern"), []string{"open: <nil>", "unconfined"})
	if _, err := layered(t, Layers{AppArmor: "duplex-nothing"}, newSpec(newTree(t), "facts")); err == nil || !strings.Contains(err.Error(), "duplex-nothing") {
		t.Errorf("a profile that is not loaded: %v", err)
	}
}
