// Package listing describes a directory tree line by line, so that a test can
// say that two trees are the same and show where they are not.
package listing

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Options choose what is left out, where two ways to unpack may differ.
type Options struct {
	NoTimes bool
	// SkipXattr leaves out attributes by name; nil keeps all.
	SkipXattr func(name string) bool
	// Skip leaves out a path, relative to the root, and what is below it; nil
	// keeps all.
	Skip func(rel string) bool
}

// Of lists everything below root and root itself ("."), sorted by path: type
// and mode, owner, size, device, link target, the first path of a group of
// hard links, modification time, xattrs and the sha256 of a file's bytes.
func Of(root string, opts Options) ([]string, error) {
	l := lister{root: root, opts: opts, first: map[[2]uint64]string{}}
	err := filepath.WalkDir(root, l.visit)
	return l.lines, err
}

type lister struct {
	root  string
	opts  Options
	first map[[2]uint64]string
	lines []string
}

func (l *lister) visit(path string, _ fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(l.root, path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if l.opts.Skip != nil && l.opts.Skip(rel) {
		if isDir {
			return fs.SkipDir
		}
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%q %06o %d:%d", rel, st.Mode, st.Uid, st.Gid)
	if !l.opts.NoTimes {
		fmt.Fprintf(&b, " %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	}
	if !isDir {
		// The size and link count of a directory are the file system's own.
		fmt.Fprintf(&b, " %d nlink=%d", st.Size, st.Nlink)
	}
	if key := [2]uint64{st.Dev, st.Ino}; !isDir && st.Nlink > 1 {
		if l.first[key] == "" {
			l.first[key] = rel
		}
		fmt.Fprintf(&b, " same-as=%q", l.first[key])
	}
	if err := l.detail(&b, path, &st); err != nil {
		return err
	}
	l.lines = append(l.lines, b.String())
	return nil
}

func (l *lister) detail(b *strings.Builder, path string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		sum, err := hashFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, " %s", sum)
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, " -> %q", target)
	case unix.S_IFCHR, unix.S_IFBLK:
		fmt.Fprintf(b, " dev=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	attrs, err := xattrs(path)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if l.opts.SkipXattr == nil || !l.opts.SkipXattr(a[0]) {
			fmt.Fprintf(b, " %s=%x", a[0], a[1])
		}
	}
	return nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func xattrs(path string) ([][2]string, error) {
	list := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: path, Err: err}
	}
	var out [][2]string
	value := make([]byte, 1<<16)
	for _, name := range strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 }) {
		m, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, &os.PathError{Op: "getxattr " + name, Path: path, Err: err}
		}
		out = append(out, [2]string{name, string(value[:m])})
	}
	slices.SortFunc(out, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return out, nil
}

// Diff returns the lines only in want ("-") and only in got ("+"), at most
// limit of them, "" when both are equal.
func Diff(want, got []string, limit int) string {
	in := func(lines []string) map[string]bool {
		m := make(map[string]bool, len(lines))
		for _, line := range lines {
			m[line] = true
		}
		return m
	}
	w, g := in(want), in(got)
	var out []string
	for _, line := range want {
		if !g[line] {
			out = append(out, "- "+line)
		}
	}
	for _, line := range got {
		if !w[line] {
			out = append(out, "+ "+line)
		}
	}
	if len(out) > limit {
		out = append(out[:limit], fmt.Sprintf("... and %d more", len(out)-limit))
	}
	return strings.Join(out, "\n")
}
