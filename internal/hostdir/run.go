package hostdir

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	lockName   = "lock"
	cgroupList = "cgroups"

	// RunsName is a directory beside the run directories, of package runs.
	RunsName = ".runs"
)

// Run is the scratch directory of one run, locked while its owner lives.
type Run struct {
	path string
	lock *os.File
}

// NewRun makes and locks the run directory of id (see workload.Spec.ID). It
// fails when a live run has the same id.
func NewRun(id string) (*Run, error) {
	if id == "" || strings.ContainsAny(id, "/.") {
		return nil, fmt.Errorf("run id %q is not a plain name", id)
	}
	root, err := RuntimeRoot()
	if err != nil {
		return nil, err
	}
	unlock, err := lockRoot(root)
	if err != nil {
		return nil, err
	}
	defer unlock()
	path := filepath.Join(root, id)
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the run directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the run directory: %w", err), os.RemoveAll(path))
	}
	if err := flock(lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the run directory: %w", err), lock.Close(), os.RemoveAll(path))
	}
	return &Run{path: path, lock: lock}, nil
}

// Path returns the scratch directory; whatever is put there goes with Close.
func (r *Run) Path(elem ...string) string {
	return filepath.Join(append([]string{r.path}, elem...)...)
}

// NoteCgroup records a cgroup directory before it is made, so that Sweep finds
// it when this process dies.
func (r *Run) NoteCgroup(dir string) error {
	if strings.ContainsRune(dir, '\n') {
		return fmt.Errorf("cgroup %q: newline in path", dir)
	}
	f, err := os.OpenFile(r.Path(cgroupList), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("note cgroup: %w", err)
	}
	_, err = fmt.Fprintln(f, dir)
	return errors.Join(err, f.Close())
}

// Close undoes everything the run noted and removes its directory. It is
// idempotent.
func (r *Run) Close() error {
	if r.lock == nil {
		return nil
	}
	err := undo(r.path)
	err = errors.Join(err, r.lock.Close())
	r.lock = nil
	return err
}

// Sweep removes what runs whose owner died left behind and returns their ids.
// It is safe to call while other runs live.
func Sweep() ([]string, error) {
	root, err := RuntimeRoot()
	if err != nil {
		return nil, err
	}
	unlock, err := lockRoot(root)
	if err != nil {
		return nil, err
	}
	defer unlock()
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	var swept []string
	var errs error
	for _, e := range entries {
		if !e.IsDir() || e.Name() == RunsName {
			continue
		}
		done, err := sweepOne(filepath.Join(root, e.Name()))
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("sweep %s: %w", e.Name(), err))
		}
		if done {
			swept = append(swept, e.Name())
		}
	}
	return swept, errs
}

// lockRoot keeps the making of a run directory and its locking together: who
// holds it and finds a directory without a lock file knows it is abandoned.
func lockRoot(root string) (unlock func(), err error) {
	f, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("lock the runtime directory: %w", err)
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the runtime directory: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func sweepOne(path string) (bool, error) {
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|syscall.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return true, undo(path)
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = lock.Close() }()
	if err := flock(lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return false, nil
		}
		return false, err
	}
	return true, undo(path)
}

func undo(path string) error {
	var errs error
	list, err := os.Open(filepath.Join(path, cgroupList))
	if err == nil {
		sc := bufio.NewScanner(list)
		for sc.Scan() {
			errs = errors.Join(errs, RemoveCgroup(sc.Text()))
		}
		errs = errors.Join(errs, sc.Err(), list.Close())
	}
	if errs != nil {
		return errs // keep the notes: the next sweep tries again
	}
	return os.RemoveAll(path)
}

// Owned returns nil when the directory path, or the one it is a link to, is the
// caller's; ErrForeign when it is somebody else's.
func Owned(path string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	return ownedByUs(path)
}

func ownedByUs(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%s: not a directory", path)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: %w", path, ErrForeign)
	}
	return nil
}
