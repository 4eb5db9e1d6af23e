package inside

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/launch"
)

// tree is the file system of a container in the making, a bundle's or one of our own runs. Its root is opened
// once; everything below is found from that descriptor, and mounted on
// descriptors.
type tree struct {
	files           *handshake.Files
	cgroupNamespace bool

	root *os.File // the bundle's rootfs, a mount of its own
	// cgroup opens the mount of a hierarchy that the container's first process has
	// made; nil to make it here.
	cgroup func(name string) (*os.File, error)
	null   *os.File // the host's /dev/null, checked to be it
	// empty is an empty directory of a mount of ours, once one is needed.
	empty *os.File
	// kept are procfs and sysfs by their place, see keep.
	kept map[string]*os.File
}

// steps make the file system as far as the hooks that come before pivot_root
// see it; lastSteps finish and enter it.
func (t *tree) steps() []ociStep {
	return []ociStep{
		{"set the propagation of mounts", t.propagate},
		{"open /dev/null", t.openNull},
		{"mount the rootfs", t.mountRoot},
		{"mount", t.mountAll},
		{"make the devices", t.devices},
		{"make the working directory", t.makeCwd},
	}
}

func (t *tree) lastSteps() []ociStep {
	return []ociStep{
		{"make paths read-only", t.readOnlyPaths},
		{"mask paths", t.maskPaths},
		{"make the root read-only", t.readOnlyRoot},
		{"enter the root", t.enter},
	}
}

// propagate sets the propagation of all mounts of the new namespace, so that
// nothing made here reaches the host unless the bundle asks for it.
func (t *tree) propagate() error {
	if !t.files.NewNamespace {
		return nil
	}
	how := t.files.Propagation
	if how == 0 {
		how = unix.MS_SLAVE | unix.MS_REC
	}
	return unix.Mount("", "/", "", how, "")
}

// mountRoot binds the rootfs to itself, with what is mounted below.
func (t *tree) mountRoot() error {
	dir := t.files.Rootfs
	at, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	if t.files.NewNamespace {
		if err := privateParent(dir); err != nil {
			return err
		}
	}
	if t.root, err = cloneMount(at, "", true); err != nil {
		return err
	}
	if err := attach(t.root, at); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// openNull makes sure that what masks paths is /dev/null, and keeps that very
// node (CVE-2025-31133).
func (t *tree) openNull() error {
	f, err := os.OpenFile("/dev/null", unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	t.null = f
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return errors.New("the host's is another device")
	}
	return nil
}

// privateParent makes the mount that dir is on private: pivot_root(2) refuses a
// shared one, and the bind mount should not reach the host.
func privateParent(dir string) error {
	for {
		err := unix.Mount("", dir, "", unix.MS_PRIVATE, "")
		if err == nil || !errors.Is(err, unix.EINVAL) || dir == "/" {
			return err
		}
		dir = path.Dir(dir)
	}
}

func (t *tree) mountAll() error {
	for _, m := range t.files.Mounts {
		if err := t.mount(m); err != nil {
			return fmt.Errorf("%s: %w", m.Dest, err)
		}
	}
	return nil
}

func (t *tree) devices() error {
	if !t.files.Dev {
		return nil
	}
	dev, err := launch.MountPoint(t.root, "/dev", true)
	if err != nil {
		return err
	}
	defer func() { _ = dev.Close() }()
	if err := linkDev(dev); err != nil {
		return err
	}
	for _, d := range t.files.Devices {
		if err := t.device(d); err != nil {
			return fmt.Errorf("%s: %w", d.Path, err)
		}
	}
	return nil
}

// device makes a node, or in a user namespace, which may not, binds the host's.
// What is there already must be that device.
func (t *tree) device(d handshake.Device) error {
	if t.files.User {
		return t.bindDevice(d)
	}
	dir, err := parentDir(t.root, d.Path)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	fd, name := int(dir.Fd()), path.Base(d.Path)
	rdev := unix.Mkdev(d.Major, d.Minor)
	err = unix.Mknodat(fd, name, d.Mode, int(rdev))
	if errors.Is(err, unix.EEXIST) {
		return sameDevice(fd, name, d)
	}
	if err != nil {
		return fmt.Errorf("mknod: %w", err)
	}
	if err := unix.Fchownat(fd, name, int(d.UID), int(d.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	return nil
}

// sameDevice is an error unless the file at dir and name is device d.
func sameDevice(dir int, name string, d handshake.Device) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := d.Mode & unix.S_IFMT
	if st.Mode&unix.S_IFMT != kind || kind != unix.S_IFIFO && st.Rdev != unix.Mkdev(d.Major, d.Minor) {
		return errors.New("another file is there already")
	}
	return nil
}

func (t *tree) bindDevice(d handshake.Device) error {
	host, err := os.OpenFile(path.Dir(d.Path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open the host's: %w", err)
	}
	defer func() { _ = host.Close() }()
	name := path.Base(d.Path)
	if err := sameDevice(int(host.Fd()), name, d); err != nil {
		return fmt.Errorf("the host's: %w", err)
	}
	m, err := cloneMount(host, name, false)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	at, err := launch.MountPoint(t.root, d.Path, false)
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	return attach(m, at)
}

// parentDir opens the directory that name is to be in, made where it is missing.
func parentDir(root *os.File, name string) (*os.File, error) {
	dir := path.Dir(path.Clean("/" + name))
	if dir == "/" {
		return openIn(root, ".")
	}
	return launch.MountPoint(root, dir, true)
}

// makeCwd makes the working directory while the root can still be written to.
func (t *tree) makeCwd() error {
	cwd := path.Clean("/" + t.files.Cwd)
	if cwd == "/" {
		return nil
	}
	dir, err := launch.MountPoint(t.root, cwd, true)
	if err != nil {
		return err
	}
	return dir.Close()
}

// atEach does one thing to each of paths. One that is not there is skipped;
// symbolic links are followed inside the root only.
func (t *tree) atEach(paths []string, do func(at *os.File) error) error {
	for _, p := range paths {
		at, err := t.openMasked(p)
		if missing(err) {
			continue
		}
		if err != nil {
			return err
		}
		err = do(at)
		_ = at.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

func (t *tree) readOnlyPaths() error { return t.atEach(t.files.ReadOnly, readOnlyAt) }

func (t *tree) maskPaths() error { return t.atEach(t.files.Masked, t.mask) }

func readOnlyAt(at *os.File) error {
	m, err := cloneMount(at, "", true)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	if err := setAttrs(m, unix.MOUNT_ATTR_RDONLY, true); err != nil {
		return err
	}
	return attach(m, at)
}

// mask covers a file with /dev/null and a directory with an empty one.
func (t *tree) mask(at *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(at.Fd()), &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	source := t.null
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if t.empty == nil {
			return t.maskFirst(at)
		}
		source = t.empty
	}
	m, err := cloneMount(source, "", false)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	// Without, a chmod inside would reach the host's /dev/null.
	if err := setAttrs(m, unix.MOUNT_ATTR_RDONLY, false); err != nil {
		return err
	}
	return attach(m, at)
}

// maskFirst covers a directory with a new tmpfs, which serves as the source of
// the next ones.
func (t *tree) maskFirst(at *os.File) (err error) {
	t.empty, err = newMount("tmpfs", unix.MOUNT_ATTR_RDONLY|noSuidExecDev,
		option{"source", "tmpfs"}, option{key: "ro"}, option{"nr_blocks", "1"}, option{"nr_inodes", "1"})
	if err != nil {
		return err
	}
	return attach(t.empty, at)
}

func (t *tree) readOnlyRoot() error {
	if !t.files.ReadOnlyRoot {
		return nil
	}
	return setAttrs(t.root, unix.MOUNT_ATTR_RDONLY, false)
}

// enter makes the tree the root directory. What was opened of the host before is
// closed by execve, or was never opened: the descriptors are close-on-exec.
func (t *tree) enter() error {
	defer t.close()
	if !t.files.NewNamespace {
		if err := unix.Fchdir(int(t.root.Fd())); err != nil {
			return err
		}
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("chroot: %w", err)
		}
		return unix.Chdir("/")
	}
	if err := pivotTo(t.root); err != nil {
		return err
	}
	if t.files.Propagation == 0 {
		return nil
	}
	// pivot_root(2) takes a root that is not shared; now it may be.
	return unix.Mount("", "/", "", t.files.Propagation, "")
}

func (t *tree) close() {
	for _, f := range t.kept {
		_ = f.Close()
	}
	for _, f := range []*os.File{t.root, t.null, t.empty} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// openInside opens an absolute path as the container sees it, with O_PATH.
func openInside(root *os.File, name string) (*os.File, error) {
	rel := strings.TrimLeft(path.Clean("/"+name), "/")
	if rel == "" {
		rel = "."
	}
	f, err := launch.OpenAt(root, rel, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return f, nil
}

func missing(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}
