package inside

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/workload"
)

// builder makes the container's file system. Its files stay open until it is
// done: each names a mount.
type builder struct {
	tree  // its root is the overlay
	setup *handshake.Setup
	conn  handshake.Conn
	lower *os.File // root directory of the image
	stage *os.File // tmpfs with upper/, work/, lower/, root/ and nodes/

	volumes []*os.File // detached mounts, in the order of setup.Volumes
}

// build makes and enters the container's root file system; when it returns, the
// host's is gone from this mount namespace. It returns the phases passed.
func build(s *handshake.Setup, c handshake.Conn) ([]handshake.Stamp, error) {
	return newBuilder(s, c).build()
}

func newBuilder(s *handshake.Setup, c handshake.Conn) *builder {
	b := &builder{setup: s, conn: c}
	b.files = &handshake.Files{Mounts: defaultMounts(s.TTYGroup, s.Shared.IPC, s.ShmBytes)}
	if !s.NoMasks {
		b.files.Masked, b.files.ReadOnly = append(cpuThermalPaths(), maskedPaths...), readOnlyPaths
	}
	return b
}

func (b *builder) build() ([]handshake.Stamp, error) {
	defer b.close()
	unix.Umask(0)
	var stamps []handshake.Stamp
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"make the mounts private", b.private},
		{"open /dev/null", b.openNull},
		{"open the volumes", b.openVolumes},
		{"set up the network", b.network},
		{"mount the scratch tmpfs", b.mountStage},
		{"mount the image", b.mountLower},
		{"write the extra files", b.writeExtra},
		{"mount the overlay", b.mountOverlay},
		{"mount", b.mountAll},
		{"mount /sys", b.mountSys},
		{"make the device nodes", b.makeNodes},
		{"mask paths", b.maskPaths},
		{"make paths read-only", b.readOnlyPaths},
		{"write the names of the network", b.writeNames},
		{"mount the volumes", b.mountVolumes},
		{"set the host name", b.setHostname},
		{"", func() error {
			stamps = append(stamps, handshake.Stamp{Phase: workload.PhaseLoaded, Ns: workload.Now()})
			return nil
		}},
		{"pivot_root", b.pivot},
	} {
		var named *handshake.StepError
		err := step.run()
		if errors.As(err, &named) {
			return nil, err
		}
		if err != nil {
			return nil, &handshake.StepError{Step: step.name, Err: err}
		}
	}
	return append(stamps, handshake.Stamp{Phase: workload.PhaseEntered, Ns: workload.Now()}), nil
}

func (b *builder) setHostname() error {
	if b.setup.Shared.UTS {
		return nil
	}
	return unix.Sethostname([]byte(b.setup.Hostname))
}

func (b *builder) close() {
	b.tree.close()
	for _, f := range append(b.volumes, b.stage, b.lower) {
		if f != nil {
			_ = f.Close()
		}
	}
}

// private keeps what happens here from the host, and the other way round.
func (b *builder) private() error {
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
}

// stageDirs are the directories of the scratch tmpfs.
var stageDirs = []string{"upper", "work", "lower", "root", "nodes", "empty"}

// mountStage mounts the scratch tmpfs over some directory every host has. The
// image's files are opened first: they may lie below that directory.
func (b *builder) mountStage() error {
	if err := b.openLower(); err != nil {
		return err
	}
	m, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC,
		option{"mode", "0755"}, option{"source", "duplex"})
	if err != nil {
		return err
	}
	b.stage = m
	at, err := os.OpenFile("/tmp", unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, os.ErrNotExist) {
		at, err = os.OpenFile("/dev", unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	if err := attach(m, at); err != nil {
		return err
	}
	for _, d := range stageDirs {
		if err := unix.Mkdirat(int(m.Fd()), d, 0o755); err != nil {
			return fmt.Errorf("mkdir %s: %w", d, err)
		}
	}
	b.empty, err = openIn(m, "empty")
	return err
}

// writeExtra puts the files that come with the run into the upper directory,
// before the overlay looks at it: nothing of the image is in the way.
func (b *builder) writeExtra() error {
	for _, x := range b.setup.Extra {
		path := "upper/" + filepath.Base(x.Path)
		fd, err := unix.Openat(int(b.stage.Fd()), path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, x.Mode&0o777)
		if err != nil {
			return fmt.Errorf("create %s: %w", x.Path, err)
		}
		f := os.NewFile(uintptr(fd), x.Path)
		_, err = f.Write(x.Data)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// mountOverlay stacks the scratch tmpfs on the image. The upper directory gets
// the attributes of the image's root, because the merged root shows the upper
// one's.
func (b *builder) mountOverlay() error {
	upper, err := openIn(b.stage, "upper")
	if err != nil {
		return err
	}
	defer func() { _ = upper.Close() }()
	work, err := openIn(b.stage, "work")
	if err != nil {
		return err
	}
	defer func() { _ = work.Close() }()
	if err := copyAttributes(b.lower, procPath(upper)); err != nil {
		return err
	}
	options := []option{
		{"source", "duplex"},
		{"lowerdir", procPath(b.lower)}, {"upperdir", procPath(upper)}, {"workdir", procPath(work)},
	}
	if b.setup.Rootless {
		options = append(options, option{key: "userxattr"}) // trusted.* is not for user namespaces
	}
	if b.root, err = newMount("overlay", unix.MOUNT_ATTR_NODEV, options...); err != nil {
		return err
	}
	at, err := openIn(b.stage, "root")
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	return attach(b.root, at)
}

func copyAttributes(from *os.File, to string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return fmt.Errorf("stat the image's root: %w", err)
	}
	err := unix.Chown(to, int(st.Uid), int(st.Gid))
	if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("chown the upper root: %w", err) // those two: an id outside the user namespace
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return fmt.Errorf("chmod the upper root: %w", err)
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, times, 0); err != nil {
		return fmt.Errorf("set the upper root's times: %w", err)
	}
	return nil
}

// pivot makes the overlay the root of this mount namespace and lets go of the
// host's (pivot_root(2), "pivot_root(".", ".")"). Processes whose root and
// working directory were the old root, as the workload's, move along.
func (b *builder) pivot() error { return pivotTo(b.root) }

func pivotTo(root *os.File) error {
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return unix.Chdir("/")
}
