package microvm

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// directWorks says whether the file system of path takes O_DIRECT: tmpfs learnt
// it in Linux 6.6.
func directWorks(t *testing.T, path string) bool {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EINVAL) {
		t.Logf("%s: no O_DIRECT here: the page cache is used", path)
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	return true
}

func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
