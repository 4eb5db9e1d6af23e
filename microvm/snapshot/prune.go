package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Stale says what has changed since the snapshot of k was made, so that the duplex of
// that version cannot use it here: its error wraps ErrStale. nil if nothing has.
func (k Key) Stale(version string) error {
	now := k
	now.Duplex = version
	var err error
	if now.Host, err = HostID(); err != nil {
		return err
	}
	for _, id := range []*string{&now.KernelFile, &now.InitrdFile, &now.ImageFile} {
		if *id, err = refreshID(*id); err != nil {
			return err
		}
	}
	return k.differs(now)
}

// refreshID is the FileID that the file of id has now, "" when there is none.
func refreshID(id string) (string, error) {
	end := strings.LastIndex(id, " size ")
	if end < 0 {
		return "", nil
	}
	now, err := FileID(id[:end])
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return now, err
}

// Prune removes the snapshots in root that are stale or damaged, or all of them, and
// what killed ones left, and returns the names of those that it removed. Machines that
// were restored from them run on.
func Prune(root, version string, all bool) (removed []string, err error) {
	list, err := List(root)
	if err != nil {
		return nil, err
	}
	for _, l := range list {
		reason := l.Err
		if reason == nil {
			reason = l.Meta.Key.Stale(version)
		}
		if !all && !errors.Is(reason, ErrStale) && !errors.Is(reason, ErrDamaged) {
			continue // also what is another user's
		}
		switch rerr := Remove(root, l.Name); {
		case errors.Is(rerr, os.ErrNotExist): // somebody else did
		case rerr != nil:
			err = errors.Join(err, rerr)
		default:
			removed = append(removed, l.Name)
		}
	}
	if _, serr := os.Stat(root); serr == nil {
		err = errors.Join(err, sweepLocked(root))
	}
	return removed, err
}

// sweepLocked is sweep, when nobody makes a directory that he has not locked yet.
func sweepLocked(root string) error {
	r, err := lockRoot(root)
	if err != nil {
		return fmt.Errorf("remove leftovers in %s: %w", filepath.Base(root), err)
	}
	sweep(root)
	return r.Close()
}
