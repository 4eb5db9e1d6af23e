package oci

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// look has the program print files, one after another.
func (b *bundle) look(t *testing.T, files ...string) string {
	t.Helper()
	b.spec.Process.Args = append([]string{"/bin/work", "cat"}, files...)
	return b.output(t)
}

func contains(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("no %q in\n%s", w, got)
		}
	}
}

// What a bundle says of its process is what the kernel says of it.
func TestViewOfProcess(t *testing.T) {
	b := newBundle(t)
	p, adj, umask := b.spec.Process, 321, uint32(0o027)
	p.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{7}, Umask: &umask}
	p.OOMScoreAdj = &adj
	p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_MSGQUEUE", Soft: 77, Hard: 88}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 5}}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_CHOWN"}, Permitted: []string{"CAP_KILL"},
		Effective: []string{"CAP_KILL"}, Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"}}
	p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
	p.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 3}
	b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	b.spec.Hostname, b.spec.Domainname = "upstairs", "example"
	b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "42", "kernel/msgmax": "4321"}
	got := b.look(t, "/proc/self/status", "/proc/self/limits", "/proc/self/oom_score_adj", "/proc/self/personality",
		"/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname", "/proc/sys/net/ipv4/ip_default_ttl", "/proc/sys/kernel/msgmax",
		"/proc/self/stat", "/proc/net/dev")
	contains(t, got, "Uid:\t1000\t1000\t1000\t1000", "Gid:\t1001\t1001\t1001\t1001", "Groups:\t7 1001", "Umask:\t0027",
		"NoNewPrivs:\t1", "CapInh:\t0000000000000020", "CapPrm:\t0000000000000020", "CapEff:\t0000000000000020",
		"CapBnd:\t0000000000000021", "CapAmb:\t0000000000000020", "Pid:\t1\n",
		"Max msgqueue size         77                   88", "Max core file size        0                    5",
		"\n321\n", "00000008\n", "upstairs\n", "example\n", "\n42\n", "4321\n", " 23 3 ", "lo:")
}

// Masks, read-only paths, mounts with options, and the root.
func TestViewOfFiles(t *testing.T) {
	b := newBundle(t)
	rootfs := filepath.Join(b.dir, "rootfs")
	must(t, os.MkdirAll(filepath.Join(rootfs, "up", "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(rootfs, "up", "sub", "file"), []byte("copied up\n"), 0o640))
	must(t, os.Symlink("sub/file", filepath.Join(rootfs, "up", "link")))
	must(t, os.Mkdir(filepath.Join(b.dir, "data"), 0o755))
	must(t, os.WriteFile(filepath.Join(b.dir, "data", "file"), []byte("bound\n"), 0o644))
	must(t, os.Mkdir(filepath.Join(rootfs, "data"), 0o755))
	must(t, os.Symlink("/data", filepath.Join(rootfs, "absolute")))
	b.spec.Mounts = append(b.spec.Mounts,
		specs.Mount{Destination: "/up", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}},
		specs.Mount{Destination: "/absolute/in", Source: "data", Options: []string{"rbind", "rro", "nosuid"}}, // of the bundle, through a link
		specs.Mount{Destination: "/one", Type: "bind", Source: filepath.Join(b.dir, "data", "file")},
	)
	b.spec.Linux.MaskedPaths = append(b.spec.Linux.MaskedPaths, "/proc/self/../cpuinfo", "/not/there")
	got := b.look(t, "/up/link", "/data/in/file", "/one", "/proc/self/mountinfo", "/proc/cpuinfo")
	contains(t, got, "copied up\nbound\nbound\n", " /data/in ro,nosuid", " /proc/sys ro,", " /proc/cpuinfo ro", " /sys/firmware ro,", " /dev/pts rw,nosuid,noexec")
	if strings.Contains(got, "vendor_id") {
		t.Error("/proc/cpuinfo is not masked")
	}
	if b.spec.Root.Readonly = true; strings.Contains(b.writes(t, "/new"), "<nil>") {
		t.Error("the root is not read-only")
	}
	b.spec.Root.Readonly = false
	for file, denied := range map[string]bool{"/new": false, "/up/new": false, "/data/in/new": true, "/proc/sys/kernel/panic": true, "/sys/new": true} {
		if got := b.writes(t, file); strings.Contains(got, "<nil>") == denied {
			t.Errorf("write to %s: %s", file, got)
		}
	}
}

func (b *bundle) writes(t *testing.T, file string) string {
	t.Helper()
	b.spec.Process.Args = []string{"/bin/work", "write", file}
	return b.output(t)
}

// The limits are in force, and update changes them.
func TestLimits(t *testing.T) {
	b := newBundle(t, "wait")
	memory, pids, shares := int64(64<<20), int64(50), uint64(512)
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
	b.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	b.spec.Linux.Resources.CPU = &specs.LinuxCPU{Shares: &shares, Cpus: "0"}
	c := b.create(t)
	must(t, c.Start(t.Context()))
	check := func(memory uint64, pids uint64) {
		t.Helper()
		s := c.Cgroups.Stats()
		if s.Memory.Usage.Limit != memory || s.Pids.Limit != pids || s.Pids.Current == 0 || s.Memory.Usage.Usage == 0 {
			t.Errorf("limits and use: %+v %+v", s.Memory.Usage, s.Pids)
		}
	}
	check(64<<20, 50)
	memory, pids = 128<<20, 40
	must(t, c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}, Pids: &specs.LinuxPids{Limit: &pids}}))
	check(128<<20, 40)
	if err := c.Update(&specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"x": {}}}); err == nil {
		t.Error("update of rdma: no error")
	}
	var events []Event
	must(t, c.Events(t.Context(), 0, func(e Event) error { events = append(events, e); return nil }))
	if len(events) != 1 || events[0].Type != "stats" || events[0].ID != c.ID {
		t.Errorf("events %v", events)
	}
	b2, err := os.ReadFile("/proc/" + fmt.Sprint(c.Pid) + "/status")
	must(t, err)
	contains(t, string(b2), "Cpus_allowed_list:\t0\n")
}

// A device that no rule allows does not open, though the container may make its
// node; one that is allowed does.
func TestDevices(t *testing.T) {
	b := newBundle(t)
	b.spec.Linux.Devices = []specs.LinuxDevice{
		{Path: "/dev/mem", Type: "c", Major: 1, Minor: 1},
		{Path: "/dev/sub/kmsg", Type: "c", Major: 1, Minor: 11},
		{Path: "/run/fifo", Type: "p"},
	}
	major, minor := int64(1), int64(11)
	b.spec.Linux.Resources.Devices = append(b.spec.Linux.Resources.Devices,
		specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "w"})
	for file, want := range map[string]string{
		"/dev/mem": "operation not permitted", "/dev/sub/kmsg": "<nil>", "/dev/null": "<nil>", "/dev/full": "no space left",
	} {
		contains(t, b.writes(t, file), want)
	}
	must(t, unix.Mknod(filepath.Join(b.dir, "rootfs", "taken"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))))
	b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/taken", Type: "c", Major: 1, Minor: 3}}
	if _, _, err := b.run(t); err == nil || !strings.Contains(err.Error(), "another file is there already") {
		t.Errorf("a node in the place of another: %v", err)
	}
}

func TestSeccomp(t *testing.T) {
	eacces := uint(unix.EACCES)
	for _, nnp := range []bool{true, false} {
		b := newBundle(t, "mkdir", "/new")
		b.spec.Process.NoNewPrivileges = nnp
		b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdirat", "mkdir"}, Action: specs.ActErrno, ErrnoRet: &eacces}}}
		contains(t, b.output(t), "permission denied")
	}
}

// The listener goes to the socket of the bundle with the state of the container.
func TestSeccompNotify(t *testing.T) {
	b := newBundle(t, "mkdir", "/new")
	listener := filepath.Join(b.dir, "agent.sock")
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: listener, ListenerMetadata: "meta",
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdirat", "mkdir"}, Action: specs.ActNotify}}}
	l, err := net.Listen("unix", listener)
	must(t, err)
	defer func() { _ = l.Close() }()
	got := make(chan specs.ContainerProcessState, 1)
	go func() {
		var state specs.ContainerProcessState
		if conn, err := l.Accept(); err == nil {
			data, oob := make([]byte, 1<<16), make([]byte, 64)
			n, oobn, _, _, _ := conn.(*net.UnixConn).ReadMsgUnix(data, oob)
			_ = json.Unmarshal(data[:n], &state)
			// Closing the descriptor makes the calls fail with ENOSYS.
			if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) == 1 {
				fds, _ := unix.ParseUnixRights(&msgs[0])
				for _, fd := range fds {
					_ = unix.Close(fd)
				}
				state.Fds = append(state.Fds, fmt.Sprint(len(fds)))
			}
		}
		got <- state
	}()
	contains(t, b.output(t), "function not implemented")
	s := <-got
	if len(s.Fds) != 2 || s.Fds[0] != specs.SeccompFdName || s.Fds[1] != "1" || s.Metadata != "meta" || s.State.ID == "" || s.Pid == 0 {
		t.Errorf("the agent got %+v", s)
	}
}

// In a user namespace the root of the container is nobody on the host.
func TestUserNamespace(t *testing.T) {
	b := newBundle(t)
	b.forUsers(t)
	contains(t, b.look(t, "/proc/self/uid_map", "/proc/self/status", "/proc/self/setgroups"),
		"         0     100000       1000", "Uid:\t0\t0\t0\t0", "NoNewPrivs:\t1", "allow")
	contains(t, b.writes(t, "/dev/null"), "<nil>")
}

// forUsers gives the bundle a user namespace and the owners that go with it.
func (b *bundle) forUsers(t *testing.T) {
	for dir := b.dir; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	must(t, filepath.WalkDir(filepath.Join(b.dir, "rootfs"), func(p string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Base(p) == "work" { // that may be the test binary itself
			return err
		}
		return os.Chown(p, 100000, 100000)
	}))
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1000}}
	b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = ids, ids
}

// An id-mapped mount shows the ids of its map: those of the container's user
// namespace, or its own.
func TestIDMappedMount(t *testing.T) {
	b := newBundle(t)
	b.forUsers(t)
	data := filepath.Join(b.dir, "data")
	must(t, os.Mkdir(data, 0o700)) // root's, which is nobody in the container
	must(t, os.WriteFile(filepath.Join(data, "file"), []byte("mine\n"), 0o600))
	mount := specs.Mount{Destination: "/data", Source: data, Options: []string{"bind"}}
	b.spec.Mounts = append(b.spec.Mounts, mount)
	last := &b.spec.Mounts[len(b.spec.Mounts)-1]
	contains(t, b.look(t, "/data/file"), "permission denied")
	last.Options = []string{"bind", "idmap"}
	contains(t, b.look(t, "/data/file"), "mine\n")
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1}}
	last.Options, last.UIDMappings, last.GIDMappings = []string{"rbind", "ro"}, ids, ids
	contains(t, b.look(t, "/data/file", "/proc/self/mountinfo"), "mine\n", " /data ro,relatime,idmapped")
}

// exec joins user and time namespaces, too, and so does another container.
func TestJoinUserNamespace(t *testing.T) {
	b := newBundle(t, "wait")
	b.forUsers(t)
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	c := b.create(t)
	must(t, c.Start(t.Context()))
	out, err := os.CreateTemp(t.TempDir(), "out")
	must(t, err)
	names := []string{"user", "time", "pid", "net", "ipc", "uts", "mnt", "cgroup"}
	args := []string{"/bin/work", "readlink"}
	for _, n := range names {
		args = append(args, "/proc/self/ns/"+n)
	}
	status, err := c.Exec(t.Context(), ExecOptions{Process: c.ExecProcess(args), Stdio: [3]*os.File{nil, out, out}})
	if status != 0 || err != nil {
		t.Fatalf("exec: %d, %v", status, err)
	}
	got, err := os.ReadFile(out.Name())
	must(t, err)
	for _, n := range names {
		want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.Pid, n))
		must(t, err)
		contains(t, string(got), want+" ")
	}

	b2 := newBundle(t)
	b2.forUsers(t)
	b2.spec.Linux.UIDMappings, b2.spec.Linux.GIDMappings = nil, nil
	for i, n := range b2.spec.Linux.Namespaces {
		if n.Type == specs.UserNamespace {
			b2.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/user", c.Pid)
		}
	}
	text := b2.look(t, "/proc/self/uid_map", "/proc/self/status")
	contains(t, text, "     100000       1000", "Pid:\t1\n", "Uid:\t0\t0")
}

// A time namespace shows another time since boot.
func TestTimeNamespace(t *testing.T) {
	b := newBundle(t)
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1_000_000}}
	var up float64
	if _, err := fmt.Sscan(b.look(t, "/proc/uptime"), &up); err != nil || up < 1_000_000 {
		t.Errorf("up for %v s, %v", up, err)
	}
}

// Namespaces are joined by path.
func TestJoin(t *testing.T) {
	holder := newBundle(t, "wait")
	c := holder.create(t)
	must(t, c.Start(t.Context()))
	b := newBundle(t)
	names := map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts"}
	for i, n := range b.spec.Linux.Namespaces {
		if file, ok := names[n.Type]; ok {
			b.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", c.Pid, file)
		}
	}
	b.spec.Process.Args = []string{"/bin/work", "readlink", "/proc/self/ns/pid", "/proc/self/ns/net", "/proc/self/ns/ipc", "/proc/self/ns/uts"}
	got := b.output(t)
	for _, file := range names {
		want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.Pid, file))
		must(t, err)
		contains(t, got, want)
	}
}

// Without a mount namespace the container has a chroot, and delete takes its
// mounts off the host (output checks that).
func TestNoMountNamespace(t *testing.T) {
	b := newBundle(t)
	b.spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.UTSNamespace}}
	b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = nil, nil
	contains(t, b.look(t, "/proc/sys/kernel/hostname"), b.spec.Hostname+"\n")
}
