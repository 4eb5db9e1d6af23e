package snapshot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	stateName  = "state"
	memoryName = "memory"
)

// Snapshot is an open snapshot.
type Snapshot struct {
	Dir  string
	Meta Meta
	// Machine is encoded as package vmm/state does; nobody has looked into it.
	Machine []byte
	// Memory is open for reading. Take it with TakeMemory to keep it open.
	memory *os.File
}

// Open opens the snapshot in dir, which must be what want says (nil: anything). It
// is checked as the package's comment says. Its errors wrap os.ErrNotExist where
// there is none, ErrStale, ErrDamaged, ErrForeign or ErrWritable.
func Open(dir string, want *Key) (_ *Snapshot, err error) {
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open the snapshot: %w", err)
	}
	defer func() { _ = d.Close() }()
	if err := ours(d); err != nil {
		return nil, fmt.Errorf("open the snapshot: %w", err)
	}
	s := &Snapshot{Dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	p, err := readState(d)
	if err != nil {
		return s, err
	}
	meta, machine, err := parse(p)
	if err != nil {
		return s, fmt.Errorf("%s: %w", filepath.Join(dir, stateName), err)
	}
	s.Meta, s.Machine = *meta, machine
	if want != nil {
		if err := meta.Key.differs(*want); err != nil {
			return s, fmt.Errorf("%s: %w", dir, err)
		}
	}
	if s.memory, err = openFile(d, memoryName); err != nil {
		return s, err
	}
	if err := s.Meta.Memory.verify(s.memory); err != nil {
		return s, fmt.Errorf("%s: %w", filepath.Join(dir, memoryName), err)
	}
	return s, nil
}

func readState(d *os.File) ([]byte, error) {
	f, err := openFile(d, stateName)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	p, err := io.ReadAll(io.LimitReader(f, int64(maxState)+1))
	if err == nil && len(p) > maxState {
		err = damaged("the state has more than %d bytes", maxState)
	}
	if err != nil {
		return nil, fmt.Errorf("read the snapshot: %w", err)
	}
	return p, nil
}

// openFile opens a regular file of the caller's in d.
func openFile(d *os.File, name string) (*os.File, error) {
	path := filepath.Join(d.Name(), name)
	fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) { // the directory is there: not os.ErrNotExist
			return nil, damaged("%s is missing", path)
		}
		return nil, fmt.Errorf("open the snapshot: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	f := os.NewFile(uintptr(fd), path)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = damaged("%s is no regular file", path)
	}
	if err == nil {
		err = ours(f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the snapshot: %w", err), f.Close())
	}
	return f, nil
}

// TakeMemory hands over the memory file, open for reading.
func (s *Snapshot) TakeMemory() *os.File {
	f := s.memory
	s.memory = nil
	return f
}

// Close closes the memory file, unless it was taken. It is idempotent.
func (s *Snapshot) Close() error {
	if f := s.TakeMemory(); f != nil {
		return f.Close()
	}
	return nil
}
