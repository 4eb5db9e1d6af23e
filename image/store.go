package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/hostdir"
)

// File names in the store; the package comment draws it.
const (
	erofsName  = "rootfs.erofs"
	configName = "config.json"
	treeName   = "tree"
	tmpSuffix  = ".tmp"
	lockSuffix = ".lock"
)

// Errors of looking something up.
var (
	ErrUnknown   = errors.New("no such image was imported")
	ErrAmbiguous = errors.New("several images match")
	ErrInUse     = errors.New("in use by a running duplex")
	errDamaged   = errors.New("damaged")
)

type store struct{ dir string }

func openStore() (*store, error) {
	dir, err := hostdir.Cache("images")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &store{dir}, nil
}

func (s *store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// load reads an image's record; fs.ErrNotExist when there is none, errDamaged
// when the image is not what was imported.
func (s *store) load(hex string) (*Image, error) {
	raw, err := os.ReadFile(s.path(hex, configName))
	if err != nil {
		return nil, err
	}
	img := &Image{}
	if err := json.Unmarshal(raw, img); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", s.path(hex, configName), errDamaged, err)
	}
	// Paths are where the store is now, not where it was at import.
	img.EROFS, img.Tree = s.path(hex, erofsName), ""
	if _, err := os.Stat(s.path(hex, treeName)); err == nil {
		img.Tree = s.path(hex, treeName)
	}
	info, err := os.Stat(img.EROFS)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: missing: %w", img.EROFS, errDamaged)
	}
	if err != nil {
		return nil, err
	}
	if info.Size() != img.Size {
		return nil, fmt.Errorf("%s: %d bytes, expected %d: %w", img.EROFS, info.Size(), img.Size, errDamaged)
	}
	return img, nil
}

// use loads an image and holds its shared lock. A store that cannot be written,
// as in the lab, needs no lock.
func (s *store) use(ctx context.Context, hex string) (*Image, error) {
	l, err := waitLock(ctx, s.path(hex+lockSuffix), unix.LOCK_SH)
	if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EROFS) {
		return nil, err
	}
	img, err := s.load(hex)
	if err != nil {
		if l != nil {
			err = errors.Join(err, l.release())
		}
		return nil, err
	}
	img.lock = l
	return img, nil
}

// ensure returns the image of src, importing it when the store lacks it.
func (s *store) ensure(ctx context.Context, src *Source, opts Options) (*Image, error) {
	for {
		// The record first: looking for what is not there would leave a lock file.
		_, err := os.Lstat(s.path(src.Digest, configName))
		if err == nil {
			var img *Image
			if img, err = s.use(ctx, src.Digest); err == nil {
				return img, nil
			}
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errDamaged) {
			return nil, err
		}
		if src.Write == nil {
			return nil, ErrNotLinked
		}
		if err := s.importLocked(ctx, src, opts); err != nil {
			return nil, err
		}
	}
}

// importLocked imports src unless another process did so in the meantime.
func (s *store) importLocked(ctx context.Context, src *Source, opts Options) (err error) {
	s.sweep()
	l, err := waitLock(ctx, s.path(src.Digest+lockSuffix), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(s.path(src.Digest + lockSuffix)) // held: nobody else relies on it
		}
		err = errors.Join(err, l.release())
	}()
	if _, err := s.load(src.Digest); err == nil {
		return nil
	}
	tmp := s.path(src.Digest + tmpSuffix)
	if err := removeTree(tmp); err != nil { // of an import that was killed
		return err
	}
	if err := s.fill(ctx, tmp, src, opts); err != nil {
		return errors.Join(err, removeTree(tmp))
	}
	// A damaged image of that digest makes room.
	if err := removeTree(s.path(src.Digest)); err != nil {
		return err
	}
	if err := os.Rename(tmp, s.path(src.Digest)); err != nil {
		return errors.Join(err, removeTree(tmp))
	}
	return syncDir(s.dir)
}

// fill makes the directory of an image under a temporary name.
func (s *store) fill(ctx context.Context, tmp string, src *Source, opts Options) error {
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(filepath.Join(tmp, erofsName), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	stats, err := src.Write(ctx, out, opts)
	if err == nil {
		err = out.Sync()
	}
	usage, statErr := diskUsage(out)
	if err := errors.Join(err, statErr, out.Close()); err != nil {
		return err
	}
	record, err := json.MarshalIndent(&Image{
		Ref: src.Ref.String(), Digest: "sha256:" + src.Digest, Config: src.Config,
		Imported: time.Now().UTC(),
		Inodes:   stats.Inodes, Size: stats.Size, DiskUsage: usage,
	}, "", "  ")
	if err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(tmp, configName), append(record, '\n')); err != nil {
		return err
	}
	return syncDir(tmp)
}

func diskUsage(f *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return st.Blocks * 512, nil
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// digests lists what is in the store, sorted.
func (s *store) digests() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if len(e.Name()) == 64 && IsHex(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// match returns the one digest that starts with prefix.
func (s *store) match(prefix string) (string, error) {
	all, err := s.digests()
	if err != nil {
		return "", err
	}
	all = slices.DeleteFunc(all, func(hex string) bool { return !strings.HasPrefix(hex, prefix) })
	switch len(all) {
	case 0:
		return "", fmt.Errorf("%s: %w", prefix, ErrUnknown)
	case 1:
		return all[0], nil
	}
	return "", fmt.Errorf("%s: %w", prefix, ErrAmbiguous)
}

func (s *store) find(ctx context.Context, prefix string) (*Image, error) {
	hex, err := s.match(prefix)
	if err != nil {
		return nil, err
	}
	return s.use(ctx, hex)
}
