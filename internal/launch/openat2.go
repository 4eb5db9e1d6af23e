package launch

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// openTries bounds how often a lookup is begun again. Each time takes a rename
// or mount just then, so that many in a row are somebody's intention.
const openTries = 1000

// OpenAt is openat2(2) below dir; the name of the result is path.
//
// A ".." (also in a symbolic link) makes the kernel give up with EAGAIN when
// anything was renamed or mounted meanwhile, anywhere on the host: RESOLVE_BENEATH
// and RESOLVE_IN_ROOT could otherwise be led out. Such a lookup is begun again.
func OpenAt(dir *os.File, path string, how *unix.OpenHow) (*os.File, error) {
	for try := 1; ; try++ {
		fd, err := unix.Openat2(int(dir.Fd()), path, how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) && try < openTries:
			continue
		}
		return nil, err
	}
}
