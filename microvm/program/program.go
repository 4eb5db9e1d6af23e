package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/embedded"
	"github.com/duplex-run/duplex/internal/hostdir"
)

// keep bounds the cache of programs, in bytes: those of a few versions of duplex.
const keep = 64 << 20

// Open returns the monitor's executable, made in the cache when it is not there.
func Open() (*os.File, error) {
	id, carried, err := embedded.Monitor()
	if err != nil {
		return nil, err
	}
	defer func() { _ = carried.Close() }()
	path, err := hostdir.Cache("programs", "monitor-"+id)
	if err != nil {
		return nil, err
	}
	return open(path, carried)
}

// open returns the file at path, a copy of carried.
func open(path string, carried fs.File) (*os.File, error) {
	info, err := carried.Stat()
	if err != nil {
		return nil, err
	}
	f, err := check(path, info.Size())
	if errors.Is(err, errSize) {
		err = os.Remove(path) // a disk that lost something
		if err == nil {
			err = fs.ErrNotExist
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	err = hostdir.MakeBounded(context.Background(), path, keep, func(f *os.File) error {
		if _, err := io.Copy(f, carried); err != nil {
			return err
		}
		return f.Chmod(0o500)
	})
	if err != nil {
		return nil, err
	}
	return check(path, info.Size())
}

var errSize = errors.New("not of its size")

// check opens the file at path if it can be relied on and executed.
func check(path string, size int64) (_ *os.File, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
		}
	}()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("no regular file")
	case int(st.Uid) != os.Geteuid():
		return nil, hostdir.ErrForeign
	case st.Mode&0o022 != 0:
		return nil, errors.New("others may write to it")
	case st.Size != size:
		return nil, errSize
	}
	var where unix.Statfs_t
	if err := unix.Fstatfs(fd, &where); err != nil {
		return nil, err
	}
	if where.Flags&unix.ST_NOEXEC != 0 {
		return nil, errors.New("its file system is mounted noexec")
	}
	return f, nil
}
