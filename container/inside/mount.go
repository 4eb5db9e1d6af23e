package inside

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/launch"
)

// option is one parameter of a file system context; an empty value is a flag.
type option struct{ key, value string }

// newMount makes a detached mount of fstype (fsopen(2), fsconfig(2),
// fsmount(2)) with the given MOUNT_ATTR_* attributes. What the kernel logged to
// the context becomes part of the error.
func newMount(fstype string, attrs int, options ...option) (*os.File, error) {
	ctx, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen %s: %w", fstype, err)
	}
	defer func() { _ = unix.Close(ctx) }()
	for _, o := range options {
		if o.value == "" {
			err = unix.FsconfigSetFlag(ctx, o.key)
		} else {
			err = unix.FsconfigSetString(ctx, o.key, o.value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s option %s=%s: %w%s", fstype, o.key, o.value, err, contextLog(ctx))
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return nil, fmt.Errorf("create %s: %w%s", fstype, err, contextLog(ctx))
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, fmt.Errorf("fsmount %s: %w%s", fstype, err, contextLog(ctx))
	}
	return os.NewFile(uintptr(fd), fstype), nil
}

// contextLog returns the messages waiting on a file system context, as ": a; b".
func contextLog(ctx int) string {
	var b strings.Builder
	buf := make([]byte, 512)
	for range 8 {
		n, err := unix.Read(ctx, buf)
		if err != nil || n <= 0 {
			break
		}
		b.WriteString(": ")
		b.WriteString(strings.TrimSpace(string(buf[:n])))
	}
	return b.String()
}

// attach puts the detached mount m onto the open directory or file at.
func attach(m, at *os.File) error {
	err := unix.MoveMount(int(m.Fd()), "", int(at.Fd()), "",
		unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("move_mount %s: %w", m.Name(), err)
	}
	return nil
}

// cloneMount makes a detached bind mount of the file or directory path below
// dir. With recursive it takes the mounts below along.
func cloneMount(dir *os.File, path string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(int(dir.Fd()), path, flags)
	if err != nil {
		return nil, fmt.Errorf("open_tree %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// setAttrs adds MOUNT_ATTR_* attributes to the mount m.
func setAttrs(m *os.File, attrs uint64, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if err := unix.MountSetattr(int(m.Fd()), "", flags, &unix.MountAttr{Attr_set: attrs}); err != nil {
		return fmt.Errorf("mount_setattr %s: %w", m.Name(), err)
	}
	return nil
}

// openIn opens path below root for use as a mount point. No symbolic link is
// followed: an image whose /proc or /dev is one is refused, so that nothing is
// mounted elsewhere than where it says (CVE-2019-19921 and its kin).
func openIn(root *os.File, path string) (*os.File, error) {
	f, err := launch.OpenAt(root, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("open /%s: the image has a symbolic link there", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open /%s: %w", path, err)
	}
	return f, nil
}

// dirIn is openIn for a directory directly below root, made when it is missing.
func dirIn(root *os.File, name string, mode uint32) (*os.File, error) {
	if err := unix.Mkdirat(int(root.Fd()), name, mode); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("mkdir /%s: %w", name, err)
	}
	f, err := openIn(root, name)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("stat /%s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		_ = f.Close()
		return nil, fmt.Errorf("open /%s: the image has no directory there", name)
	}
	return f, nil
}

// mountIn makes a mount of fstype and attaches it to the directory name below
// root. It returns the mount, open.
func mountIn(root *os.File, name, fstype string, attrs int, options ...option) (*os.File, error) {
	at, err := dirIn(root, name, 0o755)
	if err != nil {
		return nil, err
	}
	defer func() { _ = at.Close() }()
	m, err := newMount(fstype, attrs, options...)
	if err != nil {
		return nil, err
	}
	if err := attach(m, at); err != nil {
		_ = m.Close()
		return nil, err
	}
	return m, nil
}

// procPath names an open file by path, for kernel interfaces that only take
// paths.
func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
