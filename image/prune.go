package image

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// List returns the images of the store, the newest first.
func List() ([]*Image, error) {
	st, err := openStore()
	if err != nil {
		return nil, err
	}
	return st.list()
}

func (s *store) list() ([]*Image, error) {
	digests, err := s.digests()
	if err != nil {
		return nil, err
	}
	var out []*Image
	for _, hex := range digests {
		img, err := s.look(hex)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	slices.SortStableFunc(out, func(a, b *Image) int {
		return cmp.Or(b.Imported.Compare(a.Imported), cmp.Compare(a.Digest, b.Digest))
	})
	return out, nil
}

// look is load that also knows damaged images, if only to remove them.
func (s *store) look(hex string) (*Image, error) {
	img, err := s.load(hex)
	if errors.Is(err, errDamaged) {
		return &Image{Digest: "sha256:" + hex, Damaged: true}, nil
	}
	return img, err
}

// Find returns the images that name means, without importing anything: the one
// whose digest begins so, or those that were imported from that reference, the
// newest first. Failures are *workload.Error.
func Find(name string) ([]*Image, error) {
	found, err := findImages(name)
	if err != nil {
		return nil, userError(name, err)
	}
	return found, nil
}

func findImages(name string) ([]*Image, error) {
	ref, err := ParseReference(name)
	if err != nil {
		return nil, err
	}
	st, err := openStore()
	if err != nil {
		return nil, err
	}
	if ref.Kind == KindDigest {
		hex, err := st.match(ref.Path)
		if err != nil {
			return nil, err
		}
		img, err := st.look(hex)
		return []*Image{img}, err
	}
	if ref, err = ref.absolute(); err != nil {
		return nil, err
	}
	all, err := st.list()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(i *Image) bool { return i.Ref != ref.String() })
	if len(all) == 0 {
		return nil, ErrUnknown
	}
	return all, nil
}

// Remove deletes an image from the store, unless a duplex process uses it.
func Remove(img *Image) error {
	st, err := openStore()
	if err == nil {
		err = st.remove(img.hex())
	}
	if err != nil {
		return userError(img.Ref, err)
	}
	return nil
}

func (s *store) remove(hex string) error {
	l, err := tryLock(s.path(hex+lockSuffix), unix.LOCK_EX)
	if errors.Is(err, errLocked) {
		return fmt.Errorf("sha256:%.12s: %w", hex, ErrInUse)
	}
	if err != nil {
		return err
	}
	defer s.dropLock(hex, l)
	// By a rename first: an image is there whole or not at all.
	tmp := s.path(hex + tmpSuffix)
	if err := removeTree(tmp); err != nil {
		return err
	}
	if err := os.Rename(s.path(hex), tmp); err != nil {
		return err
	}
	return removeTree(tmp)
}

// Prune removes what killed imports left, and the images that nobody uses and
// that are damaged or whose reference has since been imported with other
// contents; if all is set, every image that nobody uses. It returns the images
// removed.
func Prune(all bool) ([]*Image, error) {
	st, err := openStore()
	if err != nil {
		return nil, err
	}
	st.sweep()
	images, err := st.list()
	if err != nil {
		return nil, err
	}
	var removed []*Image
	seen := map[string]bool{} // the newest of a reference comes first
	for _, img := range images {
		if superseded := seen[img.Ref]; all || superseded || img.Damaged {
			switch err := st.remove(img.hex()); {
			case err == nil:
				removed = append(removed, img)
			case !errors.Is(err, ErrInUse):
				return removed, userError(img.Ref, err)
			}
		}
		seen[img.Ref] = true
	}
	return removed, nil
}

// sweep removes what killed imports and removals left. Failures do not matter:
// the next sweep tries again.
func (s *store) sweep() {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if len(e.Name()) == 64 && IsHex(e.Name()) {
			s.sweepTree(e.Name())
		}
		hex, isTmp := strings.CutSuffix(e.Name(), tmpSuffix)
		if !isTmp {
			continue
		}
		if l, err := tryLock(s.path(hex+lockSuffix), unix.LOCK_EX); err == nil {
			_ = removeTree(s.path(e.Name()))
			s.dropLock(hex, l)
		}
	}
}

// sweepTree removes the half-made tree of an unpacking that was killed.
func (s *store) sweepTree(hex string) {
	tmp := s.path(hex, treeName+tmpSuffix)
	if _, err := os.Lstat(tmp); err != nil {
		return
	}
	if l, err := tryLock(s.path(hex, treeName+lockSuffix), unix.LOCK_EX); err == nil {
		_ = removeTree(tmp)
		_ = l.release()
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
