package lab

import (
	"archive/tar"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/duplex-run/duplex/internal/hostdir"
)

// receiver writes the files that come back. What it reads is the guest's, and
// hostile until shown otherwise: only regular files, only at or below the paths
// in back, only limit bytes.
type receiver struct {
	back  []string // absolute and clean
	limit int64    // bytes over all files
	skip  []string // directories of duplex's own: nothing in them comes back
}

var (
	errNotAsked = errors.New("the lab sent a file nobody asked for")
	errTooLong  = errors.New("the lab sent more than its memory holds")
)

func newReceiver(back []string, limit int64) (*receiver, error) {
	r := &receiver{back: back, limit: limit}
	cache, err := hostdir.Cache("x")
	if err != nil {
		return nil, err
	}
	runtime, err := hostdir.RuntimeRoot()
	if err != nil {
		return nil, err
	}
	r.skip = []string{filepath.Dir(cache), runtime}
	return r, nil
}

// unpack reads one tar archive to its end.
func (r *receiver) unpack(in io.Reader) error {
	archive := tar.NewReader(in)
	for {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read returned files: %w", err)
		}
		if err := r.file(head, archive); err != nil {
			return fmt.Errorf("return %q: %w", head.Name, err)
		}
	}
}

func (r *receiver) file(head *tar.Header, data io.Reader) error {
	name := "/" + head.Name
	if head.Typeflag != tar.TypeReg || path.Clean(name) != name || strings.ContainsRune(name, 0) {
		return errNotAsked
	}
	base := ""
	for _, b := range r.back {
		if under(name, b) && len(b) > len(base) {
			base = b
		}
	}
	if base == "" {
		return errNotAsked
	}
	for _, dir := range r.skip {
		if under(name, dir) {
			return nil
		}
	}
	if r.limit -= head.Size; head.Size < 0 || r.limit < 0 {
		return errTooLong
	}
	if name == base {
		base = path.Dir(base) // a single file; path.Clean says it is not "/"
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return write(root, strings.TrimPrefix(name[len(base):], "/"), head, data)
}

// under says whether p is dir or below it.
func under(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// write puts a file in its place whole, or not at all. os.Root keeps every
// path, through any link, below its directory.
func write(root *os.Root, name string, head *tar.Header, data io.Reader) error {
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	perm := os.FileMode(head.Mode).Perm()
	part := path.Join(path.Dir(name), ".duplex-"+rand.Text())
	f, err := root.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, data, head.Size)
	err = errors.Join(err, f.Chmod(perm), f.Close())
	if err == nil {
		err = root.Chtimes(part, head.ModTime, head.ModTime)
	}
	if err == nil {
		err = root.Rename(part, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(part))
	}
	return nil
}
