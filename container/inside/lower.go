package inside

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// openLower opens the image: the EROFS file, or the tree where there is no
// EROFS file or this process may not mount one.
func (b *builder) openLower() error {
	r := b.setup.Rootfs
	if b.lower = b.setup.Lower; b.lower != nil {
		return nil
	}
	var err error
	if r.EROFS != "" && !b.setup.Rootless {
		if b.lower, err = os.Open(r.EROFS); err == nil {
			return nil
		}
	}
	if r.Tree == "" {
		if err == nil {
			err = errors.New("the image has no unpacked tree, and a user namespace may not mount EROFS")
		}
		return err
	}
	b.lower, err = os.OpenFile(r.Tree, unix.O_PATH|unix.O_DIRECTORY, 0)
	return err
}

// mountLower makes b.lower the root directory of the image, mounted.
func (b *builder) mountLower() error {
	if b.setup.Lower != nil {
		return b.attachLower()
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(b.lower.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", b.lower.Name(), err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	m, err := mountEROFS(b.lower, st.Mode&unix.S_IFMT == unix.S_IFBLK)
	if err != nil && b.setup.Rootfs.Tree != "" {
		tree, terr := os.OpenFile(b.setup.Rootfs.Tree, unix.O_PATH|unix.O_DIRECTORY, 0)
		if terr != nil {
			return errors.Join(err, terr)
		}
		_ = b.lower.Close()
		b.lower = tree
		return nil
	}
	if err != nil {
		return err
	}
	_ = b.lower.Close()
	b.lower = m
	return b.attachLower()
}

// attachLower gives the image's mount a place, which an overlay wants it to have.
func (b *builder) attachLower() error {
	at, err := openIn(b.stage, "lower")
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	return attach(b.lower, at)
}

// MountImage makes a detached mount of an image on which ids are those of the
// user namespace ns, in a process that may: of its EROFS file, or of its tree.
func MountImage(r workload.Rootfs, ns *os.File) (*os.File, error) {
	m, err := mountImage(r)
	if err != nil {
		return nil, err
	}
	err = unix.MountSetattr(int(m.Fd()), "", unix.AT_EMPTY_PATH,
		&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the ids: %w", err), m.Close())
	}
	return m, nil
}

func mountImage(r workload.Rootfs) (*os.File, error) {
	var eerr error
	if r.EROFS != "" {
		f, err := os.Open(r.EROFS)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		m, err := mountEROFS(f, info.Mode()&os.ModeDevice != 0)
		if err == nil {
			return m, nil
		}
		eerr = err
	}
	if r.Tree == "" {
		return nil, eerr
	}
	tree, err := os.OpenFile(r.Tree, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, errors.Join(eerr, err)
	}
	defer func() { _ = tree.Close() }()
	return cloneMount(tree, "", false)
}

const lowerAttrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV

// mountEROFS makes a detached mount of an EROFS image: directly when it is a
// block device or the kernel mounts files (Linux 6.12, CONFIG_EROFS_FS_BACKED_BY_FILE),
// else through a loop device that frees itself with the mount.
func mountEROFS(image *os.File, device bool) (*os.File, error) {
	direct := func(source string) (*os.File, error) {
		return newMount("erofs", lowerAttrs, option{"source", source}, option{key: "ro"})
	}
	m, err := direct(procPath(image))
	if err == nil || device || !errors.Is(err, unix.ENOTBLK) {
		return m, err
	}
	loop, lerr := attachLoop(image)
	if lerr != nil {
		return nil, fmt.Errorf("this kernel mounts EROFS from block devices only, and %w", lerr)
	}
	defer func() { _ = loop.Close() }()
	return direct(loop.Name())
}

// attachLoop binds image to a free loop device, read-only; the kernel unbinds
// it when the last user, the mount, is gone (LO_FLAGS_AUTOCLEAR, loop(4)).
func attachLoop(image *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = control.Close() }()
	// Another process may take the free device first: then try the next.
	for range 64 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		cfg := unix.LoopConfig{Fd: uint32(image.Fd())}
		cfg.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &cfg)
		if err == nil {
			return loop, nil
		}
		_ = loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("configure %s: %w", loop.Name(), err)
		}
	}
	return nil, errors.New("every loop device is taken")
}
