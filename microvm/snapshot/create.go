package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tmpPrefix starts the names of directories that are not snapshots yet, or no more.
const tmpPrefix = ".new-"

// Pending is a snapshot in the making.
type Pending struct {
	root string   // the directory of all snapshots
	dir  *os.File // locked
	// Memory is the empty memory file, to be written.
	Memory *os.File
}

// Create begins a snapshot in root, and removes what killed ones left there.
func Create(root string) (_ *Pending, err error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("make the snapshot: %w", err)
	}
	r, err := lockRoot(root)
	if err != nil {
		return nil, fmt.Errorf("make the snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	sweep(root)
	p := &Pending{root: root}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make the snapshot: %w", err), p.Abandon())
		}
	}()
	path, err := os.MkdirTemp(root, tmpPrefix)
	if err != nil {
		return p, err
	}
	if p.dir, err = os.Open(path); err != nil {
		return p, errors.Join(err, os.Remove(path))
	}
	if err := unix.Flock(int(p.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return p, err
	}
	p.Memory, err = os.OpenFile(filepath.Join(path, memoryName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return p, err
}

// lockRoot waits until nobody makes or sweeps a directory in root, so that none sweeps
// away what another has not locked yet. Closing it ends that.
func lockRoot(root string) (*os.File, error) {
	r, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	if err = ours(r); err == nil {
		err = unix.Flock(int(r.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Commit completes the snapshot of k, whose memory is written, and gives it its
// name, in the place of one that has it. It returns its directory.
func (p *Pending) Commit(k Key, machine []byte) (string, error) {
	path := filepath.Join(p.root, k.Name())
	if err := p.commit(path, k, machine); err != nil {
		return "", fmt.Errorf("make the snapshot: %w", err)
	}
	return path, nil
}

func (p *Pending) commit(path string, k Key, machine []byte) error {
	if err := errors.Join(p.Memory.Chmod(0o400), p.Memory.Sync()); err != nil {
		return err
	}
	mem, err := describe(p.Memory)
	if err != nil {
		return err
	}
	raw, err := encode(&Meta{Key: k, Made: time.Now().UTC(), Memory: mem}, machine)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(p.dir.Name(), stateName), raw); err != nil {
		return err
	}
	if err := p.dir.Sync(); err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, p.dir.Name(), unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) { // the old one goes with Abandon
		if err = unix.Renameat2(unix.AT_FDCWD, p.dir.Name(), unix.AT_FDCWD, path, unix.RENAME_EXCHANGE); err == nil {
			return errors.Join(syncDir(p.root), p.Abandon())
		}
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: p.dir.Name(), New: path, Err: err}
	}
	err = errors.Join(syncDir(p.root), p.Memory.Close(), p.dir.Close())
	p.dir = nil
	return err
}

func writeFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Abandon removes what there is of the snapshot, unless Commit has completed it.
// It is idempotent.
func (p *Pending) Abandon() error {
	if p.dir == nil {
		return nil
	}
	var err error
	if p.Memory != nil {
		err = p.Memory.Close()
	}
	err = errors.Join(err, os.RemoveAll(p.dir.Name()), p.dir.Close()) // under the lock
	p.dir = nil
	return err
}

// sweep removes the directories whose makers were killed.
func sweep(root string) {
	entries, _ := os.ReadDir(root) // what cannot be removed now is tried again by the next
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tmpPrefix) {
			continue
		}
		path := filepath.Join(root, e.Name())
		d, err := os.Open(path)
		if err != nil {
			continue
		}
		if unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(path)
		}
		_ = d.Close()
	}
}

// List returns the snapshots in root, the newest first; those that cannot be
// opened have no Meta and an Err.
func List(root string) ([]Listed, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("list the snapshots: %w", err)
	}
	var out []Listed
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		l := Listed{Name: e.Name()}
		s, err := Open(filepath.Join(root, e.Name()), nil)
		if err != nil {
			l.Err = err
		} else {
			l.Meta = s.Meta
			_ = s.Close()
		}
		out = append(out, l)
	}
	return out, nil
}

// Listed is a snapshot in a list.
type Listed struct {
	Name string
	Meta Meta
	Err  error
}

// Remove removes the snapshot of that name. Machines that were restored from it run
// on: they have its memory open.
func Remove(root, name string) error {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsRune(name, '/') {
		return fmt.Errorf("remove the snapshot %q: %w", name, os.ErrNotExist)
	}
	path := filepath.Join(root, name)
	if _, err := os.Lstat(path); err != nil {
		return fmt.Errorf("remove the snapshot: %w", err)
	}
	// First the state: without it nothing is used of what a kill leaves behind.
	err := os.Remove(filepath.Join(path, stateName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the snapshot: %w", err)
	}
	return os.RemoveAll(path)
}
