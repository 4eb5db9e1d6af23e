package inside

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
)

const (
	noSuidExec    = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	noSuidExecDev = noSuidExec | unix.MOUNT_ATTR_NODEV
)

// defaultMounts are those of every container but /sys, docker's; ttyGroup says
// that group 5 exists in its user namespace, hostIPC that the IPC namespace is the
// host's, to which its /dev/shm belongs.
func defaultMounts(ttyGroup, hostIPC bool) []handshake.Mount {
	pts := []handshake.Setting{{Key: "ptmxmode", Value: "0666"}, {Key: "mode", Value: "0620"}}
	if ttyGroup {
		pts = append(pts, handshake.Setting{Key: "gid", Value: "5"}) // "tty" in every distribution
	}
	sized := func(mode string) []handshake.Setting {
		return []handshake.Setting{{Key: "mode", Value: mode}, {Key: "size", Value: "65536k"}}
	}
	mqueue := []handshake.Mount{{Type: "mqueue", Dest: "/dev/mqueue", Set: noSuidExecDev, Optional: true}}
	shm := handshake.Mount{Type: "tmpfs", Source: "shm", Dest: "/dev/shm", Set: noSuidExecDev, Data: sized("1777")}
	if hostIPC {
		shm = handshake.Mount{Source: "/dev/shm", Dest: "/dev/shm", Set: noSuidExecDev}
		mqueue = nil // only the namespace's owner may mount it
		if _, err := os.Stat("/dev/mqueue"); err == nil {
			mqueue = []handshake.Mount{{Source: "/dev/mqueue", Dest: "/dev/mqueue", Set: noSuidExecDev}}
		}
	}
	return append([]handshake.Mount{
		{Type: "proc", Dest: "/proc", Set: noSuidExecDev},
		{Type: "tmpfs", Dest: "/dev", Set: noSuidExecDev, Data: sized("0755"), NoFollow: true},
		{Type: "devpts", Dest: "/dev/pts", Set: noSuidExec, Data: pts},
		shm,
	}, mqueue...)
}

// mountSys mounts sysfs of the container's network namespace. A user namespace
// may not do that when the host hides parts of its own /sys (as inside another
// container): then the host's is bound, with all that is hidden in it.
func (b *builder) mountSys() error {
	m, err := mountIn(b.root, "sys", "sysfs", noSuidExecDev|unix.MOUNT_ATTR_RDONLY, option{"source", "sysfs"})
	if err == nil {
		return m.Close()
	}
	if !b.setup.Rootless || !errors.Is(err, unix.EPERM) {
		return err
	}
	host, err := os.OpenFile("/sys", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()
	at, err := openIn(b.root, "sys")
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	m, err = cloneMount(host, "", true)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	if err := setAttrs(m, noSuidExecDev|unix.MOUNT_ATTR_RDONLY, true); err != nil {
		return err
	}
	return attach(m, at)
}

// devLinks are the symbolic links of the OCI runtime specification
// (runtime-linux.md, "Dev symbolic links" and "/dev/ptmx"), and runc's core.
var devLinks = [][2]string{
	{"pts/ptmx", "ptmx"},
	{"/proc/self/fd", "fd"},
	{"/proc/self/fd/0", "stdin"},
	{"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"},
	{"/proc/kcore", "core"},
}

// linkDev makes devLinks, as far as they are not there.
func linkDev(dev *os.File) error {
	for _, l := range devLinks {
		err := unix.Symlinkat(l[0], int(dev.Fd()), l[1])
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("symlink /dev/%s: %w", l[1], err)
		}
	}
	return nil
}

// nodes are the default devices (runtime-linux.md, "Default devices").
var nodes = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

// makeNodes binds the device nodes into /dev, which itself is nodev. Root binds
// nodes of its own, so that a chmod inside does not reach the host's; a user
// namespace can only bind the host's, which it may not chmod.
func (b *builder) makeNodes() error {
	dev, err := openIn(b.root, "dev")
	if err != nil {
		return err
	}
	defer func() { _ = dev.Close() }()
	if err := linkDev(dev); err != nil {
		return err
	}
	for _, n := range nodes {
		src, err := b.nodeMount(n.name, unix.Mkdev(n.major, n.minor))
		if err != nil {
			return fmt.Errorf("/dev/%s: %w", n.name, err)
		}
		err = bindFile(src, dev, n.name)
		_ = src.Close()
		if err != nil {
			return fmt.Errorf("/dev/%s: %w", n.name, err)
		}
	}
	return nil
}

func (b *builder) nodeMount(name string, dev uint64) (*os.File, error) {
	if !b.setup.Rootless {
		path := "nodes/" + name
		if err := unix.Mknodat(int(b.stage.Fd()), path, unix.S_IFCHR|0o666, int(dev)); err != nil {
			return nil, fmt.Errorf("mknod: %w", err)
		}
		return cloneMount(b.stage, path, false)
	}
	host, err := os.OpenFile("/dev", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = host.Close() }()
	var st unix.Stat_t
	if err := unix.Fstatat(int(host.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, fmt.Errorf("stat the host's: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != dev {
		return nil, errors.New("the host's is another device")
	}
	return cloneMount(host, name, false)
}

// bindFile makes the empty file name below dir, where it is missing, and attaches
// m to it.
func bindFile(m, dir *os.File, name string) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_WRONLY, 0o666)
	if errors.Is(err, unix.EEXIST) {
		fd, err = unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return fmt.Errorf("make the mount point: %w", err)
	}
	at := os.NewFile(uintptr(fd), name)
	defer func() { _ = at.Close() }()
	return attach(m, at)
}

// maskedPaths and readOnlyPaths are docker's (moby/oci/defaults.go). What the
// running kernel does not have is skipped.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
		"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readOnlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// cpuThermalPaths lists /sys/devices/system/cpu/cpu*/thermal_throttle, which
// docker masks where the hardware has it: its counters are a side channel.
func cpuThermalPaths() []string {
	const cpus = "/sys/devices/system/cpu"
	entries, err := os.ReadDir(cpus)
	if err != nil {
		return nil // no /sys on the host: nothing to mask
	}
	var out []string
	for _, e := range entries {
		if n := strings.TrimPrefix(e.Name(), "cpu"); n != e.Name() && n != "" && n[0] >= '0' && n[0] <= '9' {
			out = append(out, cpus+"/"+e.Name()+"/thermal_throttle")
		}
	}
	return out
}
