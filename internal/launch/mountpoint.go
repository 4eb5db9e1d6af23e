package launch

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MountPoint opens the absolute path below root with O_PATH, as a place to mount
// something, and makes what is missing of it: directories, and a last directory,
// or file when dir is false. Symbolic links are followed inside root only, an
// absolute one from root on; one that leads nowhere is an error.
//
// Others may change the tree meanwhile: each name is looked up from root once
// more, so that what is opened, and what is made, is never outside.
func MountPoint(root *os.File, path string, dir bool) (*os.File, error) {
	names := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	if len(names) == 0 {
		return nil, errors.New("mount point: the root itself")
	}
	at := root
	for i, name := range names {
		last := i == len(names)-1
		prefix := strings.Join(names[:i+1], "/")
		next, err := openInRoot(root, prefix)
		if errors.Is(err, unix.ENOENT) {
			if err = makeEntry(at, name, dir || !last); err == nil {
				next, err = openInRoot(root, prefix)
			}
		}
		if at != root {
			_ = at.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("mount point /%s: %w", prefix, err)
		}
		at = next
	}
	if err := checkKind(at, dir); err != nil {
		_ = at.Close()
		return nil, fmt.Errorf("mount point %s: %w", path, err)
	}
	return at, nil
}

func openInRoot(root *os.File, path string) (*os.File, error) {
	return OpenAt(root, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// makeEntry makes a directory or an empty file. That the name is taken means
// that it is a symbolic link to nothing: it could not be opened.
func makeEntry(at *os.File, name string, dir bool) error {
	if dir {
		err := unix.Mkdirat(int(at.Fd()), name, 0o755)
		if errors.Is(err, unix.EEXIST) {
			return errors.New("a symbolic link that leads nowhere")
		}
		return err
	}
	fd, err := unix.Openat(int(at.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if errors.Is(err, unix.EEXIST) {
		return errors.New("a symbolic link that leads nowhere")
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func checkKind(f *os.File, dir bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; {
	case dir && !isDir:
		return errors.New("a directory cannot be mounted on a file")
	case !dir && isDir:
		return errors.New("a file cannot be mounted on a directory")
	}
	return nil
}
