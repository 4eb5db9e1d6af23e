package inside

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/launch"
)

// mount makes one mount of the bundle and attaches it to its place, which is
// made where it is missing.
func (t *tree) mount(m handshake.Mount) error {
	if m.Type == "cgroup" || m.Type == "cgroup2" {
		return t.mountCgroup(m)
	}
	f, dir, err := t.newTreeMount(m)
	if errors.Is(err, unix.ENODEV) && m.Optional {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	at, err := t.mountPoint(m, dir)
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	if err := overProc(m.Dest, f, at); err != nil {
		return err
	}
	if m.CopyUp {
		if err := copyUp(at, f); err != nil {
			return fmt.Errorf("tmpcopyup: %w", err)
		}
	}
	if err := attributes(f, m); err != nil {
		return err
	}
	if err := attach(f, at); err != nil {
		return err
	}
	t.keep(m, f)
	return propagation(f, m)
}

// keep remembers procfs and sysfs, so that their paths are masked in them and
// not where the names lead by then: a name may be swapped for a link meanwhile
// (CVE-2019-19921).
func (t *tree) keep(m handshake.Mount, f *os.File) {
	if (m.Type != "proc" || m.Dest != "/proc") && (m.Type != "sysfs" || m.Dest != "/sys") {
		return
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return
	}
	if t.kept == nil {
		t.kept = map[string]*os.File{}
	}
	if old := t.kept[m.Dest]; old != nil {
		_ = old.Close()
	}
	t.kept[m.Dest] = os.NewFile(uintptr(fd), m.Dest)
}

// openMasked opens a path to be masked or made read-only.
func (t *tree) openMasked(name string) (*os.File, error) {
	name = path.Clean("/" + name)
	for dest, f := range t.kept {
		if name == dest {
			return openInside(f, ".")
		}
		if below, ok := strings.CutPrefix(name, dest+"/"); ok {
			return openInside(f, below)
		}
	}
	return openInside(t.root, name)
}

// newTreeMount makes the mount, detached, and says whether its root is a
// directory.
func (t *tree) newTreeMount(m handshake.Mount) (*os.File, bool, error) {
	if m.FD > 0 {
		f := os.NewFile(uintptr(m.FD), m.Source)
		dir, err := isDir(f)
		return f, dir, err
	}
	if m.Type != "" {
		options := []option{{"source", m.Source}}
		if m.Source == "" {
			options[0].value = m.Type
		}
		for _, d := range m.Data {
			options = append(options, option{d.Key, d.Value})
		}
		if m.Type == "tmpfs" {
			options = append(options, t.modeOf(m)...)
		}
		f, err := newMount(m.Type, int(m.Set), options...)
		return f, true, err
	}
	flags := unix.O_PATH
	if m.NoFollow {
		flags |= unix.O_NOFOLLOW
	}
	src, err := os.OpenFile(m.Source, flags, 0)
	if err != nil {
		return nil, false, fmt.Errorf("source: %w", err)
	}
	defer func() { _ = src.Close() }()
	dir, err := isDir(src)
	if err != nil {
		return nil, false, err
	}
	f, err := cloneMount(src, "", m.Recursive)
	return f, dir, err
}

func isDir(f *os.File) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

// modeOf gives a tmpfs without a mode the one of the directory it covers.
func (t *tree) modeOf(m handshake.Mount) []option {
	if slices.ContainsFunc(m.Data, func(s handshake.Setting) bool { return s.Key == "mode" }) {
		return nil
	}
	at, err := openInside(t.root, m.Dest)
	if err != nil {
		return nil // it is made, with the usual mode
	}
	defer func() { _ = at.Close() }()
	var st unix.Stat_t
	if unix.Fstat(int(at.Fd()), &st) != nil {
		return nil
	}
	return []option{{"mode", fmt.Sprintf("%o", st.Mode&0o7777)}}
}

// mountPoint opens the place of m. procfs and sysfs go where they say only: on
// an image's symbolic link they would not be where the masks and the workload's
// labels are looked for (CVE-2019-19921, CVE-2023-27561).
func (t *tree) mountPoint(m handshake.Mount, dir bool) (*os.File, error) {
	at, err := launch.MountPoint(t.root, m.Dest, dir)
	if err != nil || m.Type != "proc" && m.Type != "sysfs" && (m.Type == "" || !m.NoFollow) {
		return at, err
	}
	_ = at.Close()
	return openIn(t.root, strings.TrimLeft(path.Clean(m.Dest), "/"))
}

// inProc are the files of procfs that engines put others on (lxcfs), and that
// nothing of a container's set-up depends on: runc's list.
var inProc = []string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/loadavg", "/proc/meminfo", "/proc/slabinfo",
	"/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid",
	"/proc/sys/crypto/fips_enabled",
}

// overProc refuses to put the mount f on /proc or into it: there are the masks,
// and what tools read and write to confine themselves (CVE-2019-16884). It looks
// at what is at the place, which a symbolic link may have led to.
func overProc(dest string, f, at *os.File) error {
	isProc := func(f *os.File) bool {
		var st unix.Statfs_t
		return f != nil && unix.Fstatfs(int(f.Fd()), &st) == nil && st.Type == unix.PROC_SUPER_MAGIC
	}
	switch {
	case dest != "/proc" && !isProc(at), isProc(f), slices.Contains(inProc, dest):
		return nil
	case dest == "/proc":
		return errors.New("only procfs can be mounted there")
	}
	return errors.New("it would cover a part of procfs")
}

// attributes sets what options say of the mount and of the mounts below it.
func attributes(f *os.File, m handshake.Mount) error {
	set := func(attr unix.MountAttr, recursive bool) error {
		flags := uint(unix.AT_EMPTY_PATH)
		if recursive {
			flags |= unix.AT_RECURSIVE
		}
		if err := unix.MountSetattr(int(f.Fd()), "", flags, &attr); err != nil {
			return fmt.Errorf("mount_setattr: %w", err)
		}
		return nil
	}
	if m.Set|m.Clear != 0 && m.Type == "" {
		if err := set(unix.MountAttr{Attr_set: m.Set, Attr_clr: m.Clear}, false); err != nil {
			return err
		}
	}
	if m.RecSet|m.RecClear != 0 {
		if err := set(unix.MountAttr{Attr_set: m.RecSet, Attr_clr: m.RecClear}, true); err != nil {
			return err
		}
	}
	return nil
}

func propagation(f *os.File, m handshake.Mount) error {
	for _, p := range m.Propagation {
		flags := uint(unix.AT_EMPTY_PATH)
		if p&unix.MS_REC != 0 {
			flags |= unix.AT_RECURSIVE
		}
		err := unix.MountSetattr(int(f.Fd()), "", flags, &unix.MountAttr{Propagation: uint64(p &^ unix.MS_REC)})
		if err != nil {
			return fmt.Errorf("set the propagation: %w", err)
		}
	}
	return nil
}

// mountCgroup shows the container its own cgroups: by a cgroup file system of
// its namespace, or, where it has none, by the host's directories. Of v1
// always read-only: a release_agent runs on the host (CVE-2022-0492).
func (t *tree) mountCgroup(m handshake.Mount) error {
	at, err := launch.MountPoint(t.root, m.Dest, true)
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	if err := overProc(m.Dest, nil, at); err != nil {
		return err
	}
	if t.files.V2 == "" && len(t.files.V1) == 0 {
		return nil // a user without groups of its own: the directory stays empty
	}
	if t.files.V2 != "" {
		f, err := t.cgroupDir("cgroup2", t.files.V2, m.Set)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := attach(f, at); err != nil {
			return err
		}
		return propagation(f, m)
	}
	dir, err := newMount("tmpfs", noSuidExecDev, option{"source", "tmpfs"}, option{"mode", "0755"})
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if err := attach(dir, at); err != nil {
		return err
	}
	for _, v1 := range t.files.V1 {
		if err := t.mountV1(dir, v1); err != nil {
			return fmt.Errorf("%s: %w", v1.Name, err)
		}
	}
	if err := propagation(dir, m); err != nil {
		return err
	}
	return setAttrs(dir, m.Set|unix.MOUNT_ATTR_RDONLY, false)
}

// v1Attrs are of a v1 hierarchy's mount.
const v1Attrs = noSuidExecDev | unix.MOUNT_ATTR_RDONLY

func (t *tree) mountV1(dir *os.File, v1 handshake.CgroupDir) error {
	name := strings.TrimPrefix(v1.Name, "name=")
	f, err := t.cgroupDir(v1.Name, v1.Dir, v1Attrs)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	at, err := dirIn(dir, name, 0o755)
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	if err := attach(f, at); err != nil {
		return err
	}
	if !strings.Contains(name, ",") {
		return nil
	}
	for c := range strings.SplitSeq(name, ",") { // cpu -> cpu,cpuacct
		if err := unix.Symlinkat(name, int(dir.Fd()), c); err != nil {
			return fmt.Errorf("symlink %s: %w", c, err)
		}
	}
	return nil
}

// cgroupOptions are the type and the options of a mount of one hierarchy.
func cgroupOptions(name string) (string, []option) {
	if name == "cgroup2" {
		return name, []option{{"source", "cgroup"}}
	}
	return "cgroup", v1Options(name)
}

// cgroupDir makes a mount of one hierarchy, "cgroup2" or a v1 name, detached.
func (t *tree) cgroupDir(name, host string, attrs uint64) (*os.File, error) {
	if t.cgroupNamespace {
		make := t.cgroup
		if make == nil {
			make = func(name string) (*os.File, error) {
				fstype, options := cgroupOptions(name)
				return newMount(fstype, int(attrs), options...)
			}
		}
		f, err := make(name)
		if err == nil || host == "" || !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EBUSY) {
			return f, err
		}
	}
	src, err := os.OpenFile(host, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = src.Close() }()
	f, err := cloneMount(src, "", false)
	if err != nil {
		return nil, err
	}
	if err := setAttrs(f, attrs, false); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
