// Package hostdir says where duplex keeps things on the host: a cache that may
// be deleted at any time, and one scratch directory a run that is swept when
// its owner died.
//
// A Run directory is locked with flock(2) for as long as its process lives. The
// kernel drops the lock however the process ends, so Sweep can tell an
// abandoned run (kill -9, power loss) from a live one without trusting process
// numbers, and undoes what the run noted down: cgroups are killed and removed,
// then the directory goes. Nothing is ever mounted in the host's mount
// namespace, so there is nothing to unmount.
package hostdir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Cache returns DUPLEX_CACHE, or the "duplex" directory in the user's cache
// directory, joined with elem. It makes the parent directories, mode 0700.
func Cache(elem ...string) (string, error) {
	root := os.Getenv("DUPLEX_CACHE")
	if root == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache directory: %w (set DUPLEX_CACHE)", err)
		}
		root = filepath.Join(base, "duplex")
	}
	path := filepath.Join(append([]string{root}, elem...)...)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	return path, nil
}

// RuntimeRoot returns the directory that holds the run directories:
// DUPLEX_RUNTIME, /run/duplex for root, $XDG_RUNTIME_DIR/duplex, or
// /tmp/duplex-UID. It is made with mode 0700 and must belong to the caller.
func RuntimeRoot() (string, error) {
	uid := os.Geteuid()
	root := os.Getenv("DUPLEX_RUNTIME")
	switch {
	case root != "":
	case uid == 0:
		root = "/run/duplex"
	case os.Getenv("XDG_RUNTIME_DIR") != "":
		root = filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "duplex")
	default:
		root = filepath.Join(os.TempDir(), fmt.Sprintf("duplex-%d", uid))
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", fmt.Errorf("make the runtime directory: %w", err)
	}
	if err := ownedByUs(root); err != nil {
		return "", err
	}
	return root, nil
}

// ErrForeign reports a directory that another user made.
var ErrForeign = errors.New("belongs to another user")
