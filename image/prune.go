package image

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// sweep removes what killed imports and removals left. Failures do not matter:
// the next sweep tries again.
func (s *store) sweep() {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		hex, isTmp := strings.CutSuffix(e.Name(), tmpSuffix)
		if !isTmp {
			continue
		}
		if l, err := tryLock(s.path(hex+lockSuffix), unix.LOCK_EX); err == nil {
			_ = os.RemoveAll(s.path(e.Name()))
			s.dropLock(hex, l)
		}
	}
}

// dropLock releases an exclusive lock and removes its file when there is no
// image that it is for.
func (s *store) dropLock(hex string, l *lock) {
	if _, err := os.Lstat(s.path(hex)); errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(s.path(hex + lockSuffix))
	}
	_ = l.release()
}
