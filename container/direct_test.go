package container

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/inside"
	"github.com/duplex-run/duplex/internal/workload"
)

// ofProcess has PID 1 of spec be of Go's: a wish that a script does not know.
func ofProcess(spec workload.Spec) workload.Spec {
	zero := 0
	spec.Resources.Host = &workload.HostLimits{OOMScoreAdj: &zero}
	return spec
}

// perRun are parts of what a workload sees that are of one run alone.
var perRun = regexp.MustCompile(`^\d+ \d+ \d+:\d+ |(shared|master|propagate_from):\d+|/tmp/[^ ,]*|duplex-[0-9a-f]+|uuid=\S+`)

// A workload sees the same in both kinds of containers, and PID 1 of one is a script.
func TestDirectIsTheSame(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: there is one kind")
		return
	}
	share := t.TempDir()
	for name, change := range map[string]func(*workload.Spec, *Layers){
		"docker's": func(*workload.Spec, *Layers) {},
		"a user": func(s *workload.Spec, _ *Layers) {
			s.User = workload.User{UID: 1000, GID: 1001, Groups: []uint32{5, 7}, Home: "/home"}
			s.Cwd = "/made/for/it"
		},
		"limits": func(s *workload.Spec, _ *Layers) {
			s.Rlimits = []workload.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: 100, Hard: 200}, {Resource: unix.RLIMIT_CORE, Soft: 0, Hard: 5}}
			s.Resources.Pids, s.Resources.MemoryBytes = 100, 256<<20
			s.ReadOnly = true
		},
		"volumes": func(s *workload.Spec, _ *Layers) {
			s.Volumes = []workload.Volume{{Host: share, Guest: "/data", ReadOnly: true}, {Host: share, Guest: "/new/place"}}
		},
		"fewer layers": func(_ *workload.Spec, l *Layers) {
			*l = Layers{HostIPC: true, HostUTS: true, HostCgroup: true, NoSeccomp: true, NoLandlock: true, NoMasks: true, NewPrivileges: true,
				AddCaps: []string{"SYS_PTRACE"}, DropCaps: []string{"CHOWN"}}
		},
		"privileges to gain": func(_ *workload.Spec, l *Layers) { l.NewPrivileges = true },
	} {
		t.Run(name, func(t *testing.T) {
			var views [2]view
			for i := range views {
				spec, layers := newSpec(newTree(t), "view"), Layers{}
				spec.ID = strings.Repeat("5", 32)
				spec.Env = append(spec.Env, "GODEBUG=asyncpreemptoff=1") // no pending signals of its own
				change(&spec, &layers)
				layers.AppArmor = UnconfinedAppArmor // a script knows no profiles
				if i == 1 {
					host := spec.Resources
					spec = ofProcess(spec)
					host.Host = spec.Resources.Host
					spec.Resources = host
				}
				r := tryRunIn(t, Runner{Layers: layers}, spec)
				if err := json.Unmarshal([]byte(r.out), &views[i]); err != nil {
					t.Fatalf("%v: %v: %q %q", r.exit, err, r.out, r.err)
				}
				v := views[i].Status
				if pid := v["Pid"]; v["NSpid"] != pid || v["NSpgid"] != pid || v["NSsid"] != pid {
					t.Errorf("process %s is %s, of group %s and session %s", pid, v["NSpid"], v["NSpgid"], v["NSsid"])
				}
			}
			if a, b := views[0].InitThreads, views[1].InitThreads; a != "1" || b == "1" {
				t.Errorf("threads of PID 1: %s and %s, want 1 of a script and more of Go's", a, b)
			}
			same(t, "status", statusOf(views[0]), statusOf(views[1]))
			same(t, "limits", views[0].Limits, views[1].Limits)
			same(t, "environment", views[0].Env, views[1].Env)
			same(t, "/dev", views[0].Dev, views[1].Dev)
			same(t, "mounts", plain(views[0].Mounts), plain(views[1].Mounts))
			same(t, "cgroups", plain(strings.Split(views[0].Cgroup, "\n")), plain(strings.Split(views[1].Cgroup, "\n")))
			same(t, "the rest", []string{views[0].Hostname, views[0].Cwd, views[0].Init, views[0].Lo},
				[]string{views[1].Hostname, views[1].Cwd, views[1].Init, views[1].Lo})
		})
	}
}

func tryRunIn(t *testing.T, runner Runner, spec workload.Spec) result {
	t.Helper()
	var out, stderr bytes.Buffer
	exit, err := runner.Run(t.Context(), spec, workload.Stdio{Out: &out, Err: &stderr}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return result{exit: exit, out: out.String(), err: stderr.String()}
}

// same compares lists without their order: mounts have that of their making.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	for i, list := range [][]string{got, want} {
		other := [][]string{want, got}[i]
		for _, line := range list {
			if !slices.Contains(other, line) {
				t.Errorf("%s, only %s: %s", what, []string{"of a script", "of Go's process"}[i], line)
			}
		}
	}
	if len(got) == 0 {
		t.Errorf("%s: nothing", what)
	}
}

func plain(lines []string) []string {
	var out []string
	for _, line := range lines {
		out = append(out, perRun.ReplaceAllString(line, "-"))
	}
	return out
}

// statusOf are the lines of /proc/self/status that a container decides about.
func statusOf(v view) []string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(v.Status)) {
		for _, prefix := range []string{"Cap", "Sig", "Sh", "NoNew", "Seccomp", "Umask", "Uid", "Gid", "Groups", "PPid", "Tracer"} {
			if strings.HasPrefix(key, prefix) && key != "SigQ" {
				out = append(out, key+" "+v.Status[key])
			}
		}
	}
	return out
}

// A program is found among as many files as groups may add, whatever its number is in
// this process.
func TestStartIn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: PID namespaces are for root")
		return
	}
	exe, err := os.Open("/bin/cat")
	must(t, err)
	defer func() { _ = exe.Close() }()
	in, hold, err := os.Pipe()
	must(t, err)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	must(t, err)
	defer func() { _ = null.Close() }()
	files := append([]*os.File{in}, slices.Repeat([]*os.File{null}, int(exe.Fd())+8)...)
	files = append(files, exe)
	type result struct {
		process *os.Process
		err     error
	}
	started := make(chan result)
	inside.OnThread(func() {
		process, pidfd, err := inside.StartIn(unix.CLONE_NEWPID, exe, "cat", files, &syscall.SysProcAttr{})
		started <- result{process, err}
		_ = unix.Close(pidfd)
	})
	r := <-started
	must(t, r.err)
	must(t, in.Close())
	must(t, hold.Close())
	if state, err := r.process.Wait(); err != nil || !state.Success() {
		t.Errorf("%v, %v", state, err)
	}
}
