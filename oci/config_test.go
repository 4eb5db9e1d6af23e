package oci

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
)

// minimal is the least that is a bundle.
const minimal = `{"ociVersion":"1.3.0","root":{"path":"rootfs"},"process":{"args":["/x"],"cwd":"/","user":{}}}`

// Each row is a change to a bundle that works, and a part of the error it gives:
// the name of what is wrong.
func TestParseRefuses(t *testing.T) {
	num := func(n int64) *int64 { return &n }
	for _, tt := range []struct {
		name   string
		change func(*specs.Spec)
		want   string
	}{
		{"version 2", func(s *specs.Spec) { s.Version = "2.0.0" }, "ociVersion 2.0.0 is not supported"},
		{"no version", func(s *specs.Spec) { s.Version = "" }, "ociVersion"},
		{"no root", func(s *specs.Spec) { s.Root = nil }, "root.path is missing"},
		{"NUL in root", func(s *specs.Spec) { s.Root.Path = "a\x00b" }, "root.path: it has a NUL"},
		{"no args", func(s *specs.Spec) { s.Process.Args = nil }, "process.args is empty"},
		{"relative cwd", func(s *specs.Spec) { s.Process.Cwd = "tmp" }, "process.cwd"},
		{"env without =", func(s *specs.Spec) { s.Process.Env = []string{"A"} }, "process.env"},
		{"NUL in args", func(s *specs.Spec) { s.Process.Args[0] = "\x00" }, "NUL"},
		{"rlimit unknown", func(s *specs.Spec) { s.Process.Rlimits[0].Type = "RLIMIT_X" }, "RLIMIT_X"},
		{"rlimit twice", func(s *specs.Spec) { s.Process.Rlimits = append(s.Process.Rlimits, s.Process.Rlimits[0]) }, "twice"},
		{"rlimit upside down", func(s *specs.Spec) { s.Process.Rlimits[0].Soft = 1 << 40 }, "above the hard one"},
		{"SELinux", func(s *specs.Spec) { s.Process.SelinuxLabel = "x" }, "process.selinuxLabel is not supported"},
		{"mount label", func(s *specs.Spec) { s.Linux.MountLabel = "x" }, "linux.mountLabel is not supported"},
		{"RDT", func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} }, "linux.intelRdt is not supported"},
		{"NUMA mode", func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{} }, "linux.memoryPolicy.mode"},
		{"NUMA nodes", func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: "x"} }, "linux.memoryPolicy.nodes"},
		{"NUMA flags", func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: "0", Flags: []specs.MemoryPolicyFlagType{"x"}}
		}, "linux.memoryPolicy.flags"},
		{"interface of no name", func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"../eth0": {}} }, "is not the name of an interface"},
		{"interface to no name", func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {Name: "%d%d"}} }, "is not a name for an interface"},
		{"interface with a long name", func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {Name: "sixteen-letters-"}}
		}, "is not a name for an interface"},
		{"interfaces of one name", func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {Name: "eth1"}, "eth1": {}}
		}, "eth0 and eth1 are both to be eth1"},
		{"interfaces without namespace", func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}}
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		}, "linux.netDevices: it needs a network namespace"},
		{"RDMA", func(s *specs.Spec) { s.Linux.Resources.Rdma = map[string]specs.LinuxRdma{"m": {}} }, "linux.resources.rdma is not supported"},
		{"Windows", func(s *specs.Spec) { s.Windows = &specs.Windows{} }, "windows is not supported"},
		{"VM", func(s *specs.Spec) { s.VM = &specs.VM{} }, "vm is not supported"},
		{"namespace unknown", func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "moon" }, `type "moon"`},
		{"namespace twice", func(s *specs.Spec) { s.Linux.Namespaces[0] = s.Linux.Namespaces[1] }, "twice"},
		{"namespace path", func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "x" }, "not absolute"},
		{"ids without namespace", func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }, "need a new user namespace"},
		{"namespace without ids", func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		}, "needs linux.uidMappings"},
		{"offsets without namespace", func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {}} }, "linux.timeOffsets"},
		{"host name without namespace", func(s *specs.Spec) { s.Linux.Namespaces = nil }, "uts namespace"},
		{"sysctl of the host", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} }, "kernel.panic is not of a namespace"},
		{"sysctl with dots", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../kernel/panic": "1"} }, "is not a parameter"},
		{"sysctl without namespace", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		}, "needs a network namespace"},
		{"propagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "loud" }, "linux.rootfsPropagation"},
		{"masked path", func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"proc"} }, "linux.maskedPaths"},
		{"mount on /", func(s *specs.Spec) { s.Mounts[0].Destination = "/.." }, "mount on / is not supported"},
		{"mount without type", func(s *specs.Spec) { s.Mounts[0].Type = "" }, "type is missing"},
		{"remount", func(s *specs.Spec) { s.Mounts[0].Options = []string{"remount"} }, "option remount is not supported"},
		{"copy up of proc", func(s *specs.Spec) { s.Mounts[0].Options = []string{"tmpcopyup"} }, "only for a tmpfs"},
		{"bind without source", func(s *specs.Spec) { s.Mounts[0] = specs.Mount{Destination: "/x", Options: []string{"bind"}} }, "source is missing"},
		{"hook path", func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "x"}}} }, "hooks.poststop[0].path"},
		{"hook timeout", func(s *specs.Spec) {
			zero := 0
			s.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/x", Timeout: &zero}}}
		}, "hooks.poststart[0].timeout"},
		{"device type", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}} }, `type "z"`},
		{"device path", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "x", Type: "c"}} }, "not an absolute path"},
		{"device rule", func(s *specs.Spec) { s.Linux.Resources.Devices[0].Access = "x" }, "access"},
		{"device number", func(s *specs.Spec) { s.Linux.Resources.Devices[0].Major = num(-2) }, "out of range"},
		{"scheduler", func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_EXT"} }, "process.scheduler.policy is not supported"},
		{"I/O class", func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "x"} }, "process.ioPriority"},
		{"personality", func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "BSD"} }, "linux.personality.domain"},
		{"seccomp action", func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "x"} }, "linux.seccomp"},
		{"seccomp flag", func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"x"}}
		}, "linux.seccomp.flags is not supported"},
		{"notify without listener", func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
		}, "linux.seccomp.listenerPath"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := Example()
			tt.change(s)
			data, err := json.Marshal(s)
			must(t, err)
			spec, err := Parse(data)
			if err == nil {
				_, err = plan(spec, "id", "/bundle")
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestParseSyntax(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "EOF",
		"{":                        "unexpected EOF",
		minimal + "{}":             "something follows",
		`[]`:                       "cannot unmarshal",
		`{"ociVersion":"1.0"}`:     "not a version",
		`{"ociVersion":"01.0.0"}`:  "not a version",
		`{"ociVersion":"1.3.0"}`:   "root.path is missing",
		`{"ociVersion":1}`:         "cannot unmarshal",
		strings.Repeat("[", 1<<16): "max depth",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: error %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{
		minimal,
		strings.Replace(minimal, "1.3.0", "1.0.2-dev", 1),
		strings.Replace(minimal, "{", `{"unknown":{"a":1},`, 1), // config.md, "Extensibility"
	} {
		if _, err := Parse([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What is no regular file, or too long, is not read.
func TestLoadHostile(t *testing.T) {
	for name, prepare := range map[string]func(string) error{
		"not a regular file": func(f string) error { return unix.Mkfifo(f, 0o600) },
		"no such file":       func(string) error { return nil },
		"longer than":        func(f string) error { return os.WriteFile(f, make([]byte, maxConfig+1), 0o600) },
		"root.path":          func(f string) error { return os.WriteFile(f, []byte(minimal), 0o600) },
		"the host's root": func(f string) error {
			return os.WriteFile(f, []byte(strings.Replace(minimal, "rootfs", "/", 1)), 0o600)
		},
	} {
		dir := t.TempDir()
		must(t, prepare(filepath.Join(dir, "config.json")))
		if _, _, err := Load(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want %q", err, name)
		}
	}
}

func TestMountOptions(t *testing.T) {
	for _, tt := range []struct {
		mount specs.Mount
		want  handshake.Mount
	}{
		{specs.Mount{Type: "tmpfs", Options: []string{"ro", "rw", "nosuid", "noatime", "relatime", "size=1k", "sync"}},
			handshake.Mount{Type: "tmpfs", Set: unix.MOUNT_ATTR_NOSUID, Clear: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR__ATIME,
				Data: []handshake.Setting{{Key: "size", Value: "1k"}, {Key: "sync"}}}},
		{specs.Mount{Source: "/s", Options: []string{"rbind", "rro", "rnosuid", "rsuid", "rslave", "shared"}},
			handshake.Mount{Source: "/s", Recursive: true, RecSet: unix.MOUNT_ATTR_RDONLY, RecClear: unix.MOUNT_ATTR_NOSUID,
				Propagation: []uintptr{unix.MS_SLAVE | unix.MS_REC, unix.MS_SHARED}}},
		{specs.Mount{Type: "bind", Source: "/s", Options: []string{"strictatime", "defaults"}},
			handshake.Mount{Source: "/s", Set: unix.MOUNT_ATTR_STRICTATIME, Clear: unix.MOUNT_ATTR__ATIME}},
	} {
		tt.mount.Destination, tt.want.Dest = "d/../e", "/e"
		got, err := mountPlan(tt.mount)
		must(t, err)
		a, b := toJSON(t, got), toJSON(t, tt.want)
		if a != b {
			t.Errorf("%v:\n got %s\nwant %s", tt.mount.Options, a, b)
		}
	}
}

func toJSON(t *testing.T, v any) string {
	data, err := json.Marshal(v)
	must(t, err)
	return string(data)
}

// Nothing in a config.json makes the runtime panic, and what it accepts becomes
// a plan whose mounts are below the root.
func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	data, err := json.Marshal(Example())
	must(f, err)
	f.Add(data)
	f.Add([]byte(`{"ociVersion":"1.3.0","root":{"path":"r"},"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":7,"op":"SCMP_CMP_EQ"}]}]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, err := Parse(data)
		if err != nil {
			return
		}
		p, err := plan(spec, "id", "/bundle")
		if err != nil {
			return
		}
		for _, m := range p.Files.Mounts {
			if !strings.HasPrefix(m.Dest, "/") || m.Dest == "/" || strings.Contains(m.Dest+"/", "/../") {
				t.Errorf("mount on %q", m.Dest)
			}
		}
		warnings(spec)
	})
}

// Nothing in a process.json of exec makes the runtime panic.
func FuzzProcess(f *testing.F) {
	data, err := json.Marshal(Example().Process)
	must(f, err)
	f.Add(data)
	f.Add([]byte(`{"args":["x"],"cwd":"/","rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":2}],"scheduler":{"policy":"SCHED_BATCH"},"execCPUAffinity":{"initial":"0-1"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := &specs.Process{}
		if json.Unmarshal(data, p) != nil || CheckProcess(p) != nil {
			return
		}
		c := &Container{Spec: Example()}
		plan, err := c.execPlan(ExecOptions{Process: p})
		if err == nil && (len(plan.Process.Argv) == 0 || !filepath.IsAbs(plan.Process.Cwd)) {
			t.Errorf("a plan without a program or directory: %+v", plan.Process)
		}
	})
}
