package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/image/erofs"
)

// unpack makes img's tree, for a host that cannot mount EROFS. As root it has
// the image's owners and devices. Anyone else's files belong to them, device
// nodes are left out, set-id bits, which would then be theirs, are dropped, and
// so are xattrs that need privilege: a container sees its own root as the owner
// of everything. Whoever needs more there needs a host that mounts EROFS.
func (s *store) unpack(ctx context.Context, img *Image, opts Options) (err error) {
	hex := img.hex()
	l, err := waitLock(ctx, s.path(hex, treeName+lockSuffix), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.release()) }()
	if _, err := os.Lstat(s.path(hex, treeName)); err == nil {
		img.Tree = s.path(hex, treeName)
		return nil
	}
	opts.Say("unpacking %s (this host cannot mount EROFS)", img.Ref)
	tmp := s.path(hex, treeName+tmpSuffix)
	if err := removeTree(tmp); err != nil {
		return err
	}
	if err := unpackTree(ctx, img.EROFS, tmp); err != nil {
		return errors.Join(fmt.Errorf("unpack: %w", err), removeTree(tmp))
	}
	if err := os.Rename(tmp, s.path(hex, treeName)); err != nil {
		return err
	}
	img.Tree = s.path(hex, treeName)
	return syncDir(s.path(hex))
}

// removeTree is os.RemoveAll for trees with directories their owner cannot write.
func removeTree(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	makeWritable(root, ".")
	return os.RemoveAll(dir)
}

// makeWritable lets the owner list and change every directory below name, as
// far as it goes: RemoveAll reports what remains.
func makeWritable(root *os.Root, name string) {
	_ = root.Chmod(name, 0o700)
	d, err := root.Open(name)
	if err != nil {
		return
	}
	entries, _ := d.ReadDir(-1)
	_ = d.Close()
	for _, e := range entries {
		if e.IsDir() {
			makeWritable(root, path.Join(name, e.Name()))
		}
	}
}

// unpackTree unpacks an EROFS file of ours into dir, which must not exist.
func unpackTree(ctx context.Context, image, dir string) (err error) {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	tree, err := erofs.Load(f)
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	u := &unpacker{ctx: ctx, image: f, root: root, asRoot: os.Geteuid() == 0, seen: map[*erofs.Node]string{}}
	return u.dir(".", tree)
}

type unpacker struct {
	ctx    context.Context
	image  io.ReaderAt
	root   *os.Root
	asRoot bool
	seen   map[*erofs.Node]string // first name of every file
}

// dir fills an existing directory and then gives it its own metadata, which
// may forbid filling it.
func (u *unpacker) dir(name string, n *erofs.Node) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	for _, base := range slices.Sorted(maps.Keys(n.Children)) {
		child, childName := n.Children[base], path.Join(name, base)
		if first, ok := u.seen[child]; ok {
			if err := u.root.Link(first, childName); err != nil {
				return err
			}
			continue
		}
		made, err := u.make(childName, child)
		if err != nil {
			return err
		}
		if !made {
			continue
		}
		if child.IsDir() {
			if err := u.dir(childName, child); err != nil {
				return err
			}
			continue
		}
		u.seen[child] = childName
	}
	return u.meta(name, n)
}

// make creates one entry; everything but a directory is then complete. It
// reports false for a device that this user cannot make.
func (u *unpacker) make(name string, n *erofs.Node) (bool, error) {
	var err error
	switch n.Type() {
	case unix.S_IFDIR:
		return true, u.root.Mkdir(name, 0o700)
	case unix.S_IFREG:
		err = u.file(name, n)
	case unix.S_IFLNK:
		err = u.root.Symlink(n.Target, name)
	case unix.S_IFCHR, unix.S_IFBLK:
		if !u.asRoot {
			return false, nil
		}
		err = u.mknod(name, n)
	default:
		err = u.mknod(name, n)
	}
	if err != nil {
		return false, err
	}
	return true, u.meta(name, n)
}

func (u *unpacker) file(name string, n *erofs.Node) error {
	out, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, n.Open(u.image))
	return errors.Join(err, out.Close())
}

func (u *unpacker) mknod(name string, n *erofs.Node) error {
	parent, err := u.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	dev := unix.Mkdev(n.Major, n.Minor)
	if err := unix.Mknodat(int(parent.Fd()), path.Base(name), n.Type()|0o600, int(dev)); err != nil {
		return &os.PathError{Op: "mknod", Path: name, Err: err}
	}
	return nil
}

// meta sets owner, mode, xattrs and time, in this order: chown clears set-id
// bits and capabilities.
func (u *unpacker) meta(name string, n *erofs.Node) error {
	parent, err := u.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	at := func(op string, err error) error {
		if err != nil {
			return &os.PathError{Op: op, Path: name, Err: err}
		}
		return nil
	}
	fd, base := int(parent.Fd()), path.Base(name)
	mode := n.Mode & 0o7777
	if u.asRoot {
		if err := unix.Fchownat(fd, base, int(n.UID), int(n.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return at("chown", err)
		}
	} else if mode &^= 0o6000; n.IsDir() {
		mode |= 0o700 // or its owner could not remove it
	}
	if n.Type() != unix.S_IFLNK {
		if err := unix.Fchmodat(fd, base, mode, 0); err != nil {
			return at("chmod", err)
		}
	}
	if err := at("setxattr", u.xattrs(fd, base, n)); err != nil {
		return err
	}
	ts := unix.Timespec{Sec: n.Sec, Nsec: int64(n.Nsec)}
	return at("utimes", unix.UtimesNanoAt(fd, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

// xattrs names the file through its parent's descriptor, so that no path is
// looked up twice.
func (u *unpacker) xattrs(fd int, base string, n *erofs.Node) error {
	for _, name := range slices.Sorted(maps.Keys(n.Xattrs)) {
		file := fmt.Sprintf("/proc/self/fd/%d/%s", fd, base)
		err := unix.Lsetxattr(file, name, []byte(n.Xattrs[name]), 0)
		if err != nil && u.asRoot {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
