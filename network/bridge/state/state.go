// Package state is where package bridge keeps what it made. It is apart from it for
// programs that only look whether there is something to put away.
package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir holds the lock and one file an address. It is one for the machine, whatever
// DUPLEX_RUNTIME says: so is the bridge.
const Dir = "/run/duplex-bridge"

// LinkPrefix starts the names of the interfaces on the bridge, and of their files.
const LinkPrefix = "dx"

// Claims are the names of the interfaces with a file, alive or not.
func Claims() (names []string, err error) {
	entries, err := os.ReadDir(Dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), LinkPrefix) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// Stale says whether runs that were killed left something of the bridge that the
// caller could remove. It costs next to nothing where there is no bridge.
func Stale() bool {
	if unix.Access(Dir, unix.W_OK) != nil {
		return false
	}
	names, err := Claims()
	if err != nil || len(names) == 0 {
		return true
	}
	for _, name := range names {
		if !alive(filepath.Join(Dir, name)) {
			return true
		}
	}
	return false
}

// alive says whether somebody holds the lock of a file.
func alive(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
