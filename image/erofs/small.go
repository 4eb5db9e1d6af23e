package erofs

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxSmall is the largest file that is kept behind its inode instead of in a
// block of its own. Two such records fit into a block, so it never costs space,
// and images of many small files are several times smaller.
const maxSmall = blockSize/2 - inodeSize

// spool keeps the contents of small files until Finish knows where their inodes
// are: in a file without a name, because an image may have a million of them.
type spool struct {
	file *os.File
	out  *bufio.Writer
	size int64
}

// openSpool makes a spool on the file system of the file at path.
func openSpool(path string) (*spool, error) {
	dir := filepath.Dir(path)
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EISDIR) { // an older overlay, for one
		if f, err = os.CreateTemp(dir, ".small-*"); err == nil {
			err = os.Remove(f.Name())
		}
	}
	if err != nil {
		return nil, err
	}
	return &spool{file: f, out: bufio.NewWriterSize(f, 1<<18)}, nil
}

// add appends p and returns where it is.
func (s *spool) add(p []byte) (int64, error) {
	at := s.size
	s.size += int64(len(p))
	_, err := s.out.Write(p)
	return at, err
}

func (s *spool) close() {
	if s != nil {
		_ = s.file.Close() // it has no name and nobody needs it any more
	}
}
