package inside

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copyUp copies what is below the directory from into the detached mount to,
// with owners, modes and times. Nothing is followed: each name is looked up in a
// directory that is open.
func copyUp(from, to *os.File) error {
	src, err := reopenDir(from)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	return copyDir(src, to, 0)
}

// maxDepth bounds the nesting of directories that copyUp descends into, and so
// the descriptors it holds.
const maxDepth = 128

func reopenDir(f *os.File) (*os.File, error) {
	fd, err := unix.Openat(int(f.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func copyDir(src, dst *os.File, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("more than %d directories deep", maxDepth)
	}
	names, err := src.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(src.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("stat %s: %w", name, err)
		}
		if err := copyEntry(src, dst, name, &st, depth); err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
		to := int(dst.Fd())
		if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("chown %s: %w", name, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			if err := unix.Fchmodat(to, name, st.Mode&0o7777, 0); err != nil { // chown clears set-id bits
				return fmt.Errorf("chmod %s: %w", name, err)
			}
		}
		times := []unix.Timespec{st.Atim, st.Mtim}
		if err := unix.UtimesNanoAt(to, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("set the times of %s: %w", name, err)
		}
	}
	return nil
}

func copyEntry(src, dst *os.File, name string, st *unix.Stat_t, depth int) error {
	from, to := int(src.Fd()), int(dst.Fd())
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(to, name, 0o700); err != nil {
			return err
		}
		a, err := openEntry(from, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer func() { _ = a.Close() }()
		b, err := openEntry(to, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer func() { _ = b.Close() }()
		return copyDir(a, b, depth+1)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, name, buf)
		if err != nil {
			return err
		}
		return unix.Symlinkat(string(buf[:n]), to, name)
	case unix.S_IFREG:
		a, err := openEntry(from, name, unix.O_RDONLY)
		if err != nil {
			return err
		}
		defer func() { _ = a.Close() }()
		b, err := openEntry(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
		if err != nil {
			return err
		}
		_, err = io.Copy(b, a)
		return errors.Join(err, b.Close())
	}
	return unix.Mknodat(to, name, st.Mode, int(st.Rdev))
}

func openEntry(dir int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
