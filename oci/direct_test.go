package oci

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/confine"
)

// own has a bundle's container made by a process of its own.
func own(b *bundle) {
	b.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/true"}}}
}

// Which containers have a first process without a runtime.
func TestDirect(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: every container has a process of its own, as the other tests show")
		return
	}
	for name, tc := range map[string]struct {
		change func(*bundle)
		direct bool
	}{
		"docker's":  {func(*bundle) {}, true},
		"networks":  {func(b *bundle) { b.namespacePath(specs.NetworkNamespace, "/proc/self/ns/net") }, true},
		"hook":      {own, false},
		"processes": {func(b *bundle) { b.namespacePath(specs.PIDNamespace, "/proc/self/ns/pid") }, false},
		"users":     {func(b *bundle) { b.forUsers(t) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := likeDocker(t, "exit")
			tc.change(b)
			c := b.create(t)
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.Pid))
			must(t, err)
			want := tc.direct && os.Getenv(envNoTaking) == ""
			if got := strings.HasPrefix(exe, "/memfd:duplex-script"); got != want {
				t.Errorf("its first process is %s", exe)
			}
		})
	}
}

// envNoTaking has TestDirect run where descriptors of other processes cannot be had.
const envNoTaking = "DUPLEX_TEST_NO_TAKING"

// Where a filter forbids pidfd_getfd(2), as docker's does without CAP_SYS_PTRACE,
// every container has a process of its own.
func TestNotDirect(t *testing.T) {
	if os.Getenv(envNoTaking) != "" {
		return // it is this test's own process
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestDirect$", "-test.v")
	cmd.Env = append(os.Environ(), envNoTaking+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestDirect ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// forbidTaking installs such a filter for this process.
func forbidTaking() error {
	const load, equal, end = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	return confine.SetFilter([]unix.SockFilter{
		{Code: load}, // the number of the call, which comes first in struct seccomp_data
		{Code: equal, Jf: 1, K: unix.SYS_PIDFD_GETFD},
		{Code: end, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: end, K: unix.SECCOMP_RET_ALLOW},
	}, true)
}

// differs are parts of what a container sees that are of one run alone.
var differs = regexp.MustCompile(`(?m)^\d+ \d+ \d+:\d+ |^(.*ctxt_switches|Vm.*|Rss.*|Hugetlb.*|Pid|Speculation|Cpus_allowed|Mems_allowed|State|Threads|untag_mask|x86_Thread|Ngid|THP_enabled|CoreDumping|Seccomp_filters|SigQ).*|test-[0-9-]+|/(tmp|TestDirect)[^ ,]*|(shared|master|propagate_from):\d+|mode=\S+|size=\S+|uuid=\S+`)

// A program finds the same in both kinds of containers: rights, limits, ids, mounts,
// groups, signals, descriptors, names.
func TestDirectIsTheSame(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: there is one kind")
		return
	}
	for name, change := range map[string]func(*bundle){
		"docker's": func(*bundle) {},
		"a user": func(b *bundle) {
			u := uint32(0o27)
			b.spec.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 1001}, Umask: &u}
			b.spec.Process.Capabilities.Ambient = []string{"CAP_CHOWN"}
			b.spec.Process.Capabilities.Inheritable = []string{"CAP_CHOWN"}
			b.spec.Process.NoNewPrivileges = true
		},
		"limits": func(b *bundle) {
			b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_NPROC", Soft: 1000, Hard: 2000}}
			b.spec.Process.Cwd = "/tmp"
			b.spec.Domainname = "there"
			b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		},
		"no namespace of cgroups": func(b *bundle) {
			b.spec.Linux.Namespaces = deleteNamespace(b.spec.Linux.Namespaces, specs.CgroupNamespace)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var looks [2][]string
			for i := range looks {
				b := likeDocker(t)
				change(b)
				b.spec.Hostname = "here"
				// No signals of its own runtime, which may be pending when it looks.
				b.spec.Process.Env = append(b.spec.Process.Env, "GODEBUG=asyncpreemptoff=1")
				if i == 1 {
					own(b)
				}
				text := differs.ReplaceAllString(b.look(t, "/proc/self/status", "/proc/self/limits", "/proc/self/mountinfo",
					"/proc/self/attr/current", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname",
					"/proc/sys/net/ipv4/ip_forward", "/proc/net/dev", "/proc/self/oom_score_adj"), "-")
				contains(t, text, "Seccomp:", "Max open files", " / ", "here")
				looks[i] = strings.Split(text, "\n")
			}
			for i, with := range []string{"out", ""} { // in any order: mounts have that of their making
				for _, line := range looks[i] {
					if !slices.Contains(looks[1-i], line) {
						t.Errorf("with%s a runtime only: %s", with, line)
					}
				}
			}
		})
	}
}

func deleteNamespace(list []specs.LinuxNamespace, kind specs.LinuxNamespaceType) []specs.LinuxNamespace {
	var out []specs.LinuxNamespace
	for _, n := range list {
		if n.Type != kind {
			out = append(out, n)
		}
	}
	return out
}
