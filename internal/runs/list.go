package runs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/workload"
)

// lockDir keeps what looks at several runs apart from what makes one.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
	}
}

// List returns all runs, the newest first. It settles those that were killed.
func List() ([]Record, error) {
	dir, err := store()
	if err != nil {
		return nil, err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return read(dir)
}

// read is List for a caller that has the lock.
func read(dir string) ([]Record, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the runs: %w", err)
	}
	var out []Record
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if gone, err := settle(path); err != nil || gone {
			if err != nil {
				return nil, fmt.Errorf("run %s: %w", e.Name(), err)
			}
			continue
		}
		r, err := readRecord(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			// It has just ended, and was forgotten.
		case err != nil:
			return nil, fmt.Errorf("run %s: %w", e.Name(), err)
		default:
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Record) int { return b.Created.Compare(a.Created) })
	return out, nil
}

// settle deals with a run whose process was killed; gone says that nothing of it
// is left.
func settle(path string) (gone bool, err error) {
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(path, recordName)); errors.Is(err, os.ErrNotExist) {
			return true, os.RemoveAll(path) // killed while it was made
		}
		return false, nil // it has ended
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil // it lives
		}
		return false, err
	}
	r, err := readRecord(path)
	if err != nil || !r.Detached || r.Remove || r.Started.IsZero() {
		return true, os.RemoveAll(path)
	}
	o := &Own{dir: path, lock: lock, record: r, mu: make(chan struct{}, 1)}
	if !r.Finished.IsZero() { // killed while it cleaned up
		return false, o.Finish(*orKilled(r.Exit), nil)
	}
	return false, o.Finish(*orKilled(nil), nil)
}

func orKilled(e *workload.Exit) *workload.Exit {
	if e != nil {
		return e
	}
	return &workload.Exit{Signal: int(unix.SIGKILL), Message: "duplex itself was killed"}
}

// Sweep settles the runs that were killed. It is cheap when there are none.
func Sweep() error {
	root, err := hostdir.RuntimeRoot()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, hostdir.RunsName)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return nil // nothing was ever detached
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer unlock()
	for _, e := range entries {
		if _, serr := settle(filepath.Join(dir, e.Name())); serr != nil {
			err = errors.Join(err, fmt.Errorf("run %s: %w", e.Name(), serr))
		}
	}
	return err
}

// Find is the run that ref names: by its name, its id, or the first digits of one
// id only.
func Find(ref string) (Record, error) {
	list, err := List()
	if err != nil {
		return Record{}, err
	}
	var matches []Record
	for _, r := range list {
		if r.Name == ref && ref != "" || r.ID == ref {
			return r, nil
		}
		if ref != "" && strings.HasPrefix(r.ID, ref) {
			matches = append(matches, r)
		}
	}
	switch len(matches) {
	case 0:
		return Record{}, &workload.Error{Op: fmt.Sprintf("no such run: %q", ref), Remedy: "'duplex ps -a' lists the runs."}
	case 1:
		return matches[0], nil
	}
	return Record{}, &workload.Error{
		Op:     fmt.Sprintf("%q is ambiguous", ref),
		Err:    fmt.Errorf("%d runs begin with it, %s and %s among them", len(matches), matches[0].ID, matches[1].ID),
		Remedy: "Give more of the id.",
	}
}
