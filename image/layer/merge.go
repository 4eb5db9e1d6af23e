package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/image/erofs"
)

// Merger merges layers, the lowest first. Not for concurrent use.
type Merger struct {
	out     *erofs.Writer
	limits  Limits
	root    *erofs.Node
	links   map[*erofs.Node]int // names of a file beyond its first
	touched map[nameKey]origin  // names that the present layer put or kept
	entries int
	bytes   int64 // of contents
	meta    int64 // of metadata
}

// NewMerger returns a Merger that puts contents into out.
func NewMerger(out *erofs.Writer, limits Limits) *Merger {
	return &Merger{
		out: out, limits: limits,
		root:  &erofs.Node{Mode: unix.S_IFDIR | 0o755, Children: map[string]*erofs.Node{}},
		links: map[*erofs.Node]int{},
	}
}

// Root returns the tree so far.
func (m *Merger) Root() *erofs.Node { return m.root }

// Apply puts one layer, an uncompressed tar stream, over the tree. It stops
// reading at the archive's end mark. After an error the tree is worthless.
func (m *Merger) Apply(ctx context.Context, r io.Reader) error {
	m.touched = map[nameKey]origin{}
	archive := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if err := m.entry(ctx, hdr, archive); err != nil {
			return fmt.Errorf("entry %.200q: %w", hdr.Name, err)
		}
	}
}

// entry puts one entry into the tree.
func (m *Merger) entry(ctx context.Context, hdr *tar.Header, body io.Reader) error {
	if err := m.account(hdr); err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil // a comment, such as git's
	}
	elems, err := split(hdr.Name)
	if err != nil {
		return err
	}
	if len(elems) == 0 {
		if hdr.Typeflag != tar.TypeDir {
			return fmt.Errorf("the root is no directory: %w", ErrEntry)
		}
		return m.setMeta(m.root, hdr)
	}
	parents, name := elems[:len(elems)-1], elems[len(elems)-1]
	if strings.HasPrefix(name, whiteoutPrefix) {
		return m.whiteout(parents, name)
	}
	stack, err := m.lookupDir(parents, true)
	if err != nil {
		return err
	}
	if len(stack) == maxDepth {
		return fmt.Errorf("more than %d directories deep: %w", maxDepth, ErrLimit)
	}
	return m.put(ctx, stack[len(stack)-1], name, hdr, body)
}

// put makes the entry name in dir.
func (m *Merger) put(ctx context.Context, dir *erofs.Node, name string, hdr *tar.Header, body io.Reader) error {
	old := dir.Children[name]
	isDir := hdr.Typeflag == tar.TypeDir
	if m.touched[nameKey{dir, name}] == explicit && !(isDir && old.IsDir()) {
		return fmt.Errorf("a second time in one layer: %w", ErrEntry)
	}
	if isDir && old != nil && old.IsDir() {
		m.touch(dir, name, explicit)
		return m.setMeta(old, hdr)
	}
	n, err := m.node(ctx, hdr, body)
	if err != nil {
		return err
	}
	if err := m.attach(dir, name, n); err != nil {
		return err
	}
	m.touch(dir, name, explicit)
	return nil
}

// account charges an entry to the limits before anything of it is read.
func (m *Merger) account(hdr *tar.Header) error {
	if m.entries++; m.entries > m.limits.Entries {
		return fmt.Errorf("more than %d entries in all layers: %w", m.limits.Entries, ErrLimit)
	}
	if hdr.Size > m.limits.FileSize {
		return overLimit("one file", hdr.Size, m.limits.FileSize)
	}
	if hdr.Size > m.limits.TotalSize-m.bytes {
		return overLimit("all files", m.bytes+hdr.Size, m.limits.TotalSize)
	}
	m.bytes += hdr.Size
	cost := int64(len(hdr.Name) + len(hdr.Linkname))
	for key, value := range hdr.PAXRecords {
		cost += int64(len(key) + len(value))
	}
	return m.spend(cost)
}

func (m *Merger) spend(cost int64) error {
	if m.meta += cost; m.meta > m.limits.Metadata {
		return overLimit("names, links and xattrs of all layers", m.meta, m.limits.Metadata)
	}
	return nil
}

// node makes what the entry describes, or finds what it links to.
func (m *Merger) node(ctx context.Context, hdr *tar.Header, body io.Reader) (*erofs.Node, error) {
	n := &erofs.Node{}
	switch hdr.Typeflag {
	case tar.TypeLink:
		return m.linked(hdr.Linkname)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		n.Mode = unix.S_IFREG
	case tar.TypeDir:
		n.Mode = unix.S_IFDIR
		n.Children = map[string]*erofs.Node{}
	case tar.TypeSymlink:
		if hdr.Linkname == "" || len(hdr.Linkname) >= maxPath {
			return nil, fmt.Errorf("symbolic link target of %d bytes: %w", len(hdr.Linkname), ErrEntry)
		}
		n.Mode, n.Target = unix.S_IFLNK, hdr.Linkname
	case tar.TypeFifo:
		n.Mode = unix.S_IFIFO
	case tar.TypeChar, tar.TypeBlock:
		if hdr.Devmajor < 0 || hdr.Devmajor >= 1<<12 || hdr.Devminor < 0 || hdr.Devminor >= 1<<20 {
			return nil, fmt.Errorf("device %d:%d: %w", hdr.Devmajor, hdr.Devminor, ErrEntry)
		}
		n.Major, n.Minor = uint32(hdr.Devmajor), uint32(hdr.Devminor)
		n.Mode = unix.S_IFCHR
		if hdr.Typeflag == tar.TypeBlock {
			n.Mode = unix.S_IFBLK
		}
	default:
		return nil, fmt.Errorf("unknown type %q: %w", hdr.Typeflag, ErrEntry)
	}
	if err := m.setMeta(n, hdr); err != nil {
		return nil, err
	}
	if n.Type() == unix.S_IFREG && hdr.Size > 0 {
		var err error
		if n.Data, err = m.out.Add(ctx, body, hdr.Size); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// linked finds the file that a hard link is a further name of.
func (m *Merger) linked(target string) (*erofs.Node, error) {
	fail := func(err error) (*erofs.Node, error) {
		return nil, fmt.Errorf("hard link to %.200q: %w", target, err)
	}
	elems, err := split(target)
	if err != nil {
		return fail(err)
	}
	if len(elems) == 0 {
		return fail(ErrEntry)
	}
	stack, err := m.lookupDir(elems[:len(elems)-1], false)
	if err != nil {
		return fail(err)
	}
	n := stack[len(stack)-1].Children[elems[len(elems)-1]]
	switch {
	case n == nil:
		return fail(errMissing)
	case n.IsDir():
		return fail(fmt.Errorf("a directory: %w", ErrEntry))
	}
	m.links[n]++
	return n, nil
}

// setMeta takes over owner, permissions, time and xattrs.
func (m *Merger) setMeta(n *erofs.Node, hdr *tar.Header) error {
	if hdr.Uid < 0 || hdr.Uid >= math.MaxUint32 || hdr.Gid < 0 || hdr.Gid >= math.MaxUint32 {
		return fmt.Errorf("owner %d:%d: %w", hdr.Uid, hdr.Gid, ErrEntry)
	}
	perm := uint32(hdr.Mode) & 0o7777
	if n.Type() == unix.S_IFLNK {
		perm = 0o777 // Linux knows no other
	}
	n.Mode = n.Type() | perm
	n.UID, n.GID = uint32(hdr.Uid), uint32(hdr.Gid)
	n.Sec, n.Nsec = hdr.ModTime.Unix(), uint32(hdr.ModTime.Nanosecond())
	n.Xattrs = nil
	for key, value := range hdr.PAXRecords {
		name, isXattr := strings.CutPrefix(key, "SCHILY.xattr.")
		if !isXattr || !wanted(name) {
			continue
		}
		if n.Xattrs == nil {
			n.Xattrs = map[string]string{}
		}
		n.Xattrs[name] = value
	}
	return erofs.CheckXattrs(n.Xattrs)
}

// wanted reports whether an xattr belongs to the image; see the package comment.
func wanted(name string) bool {
	return erofs.KnownXattr(name) && !erofs.IsOverlayXattr(name) && name != "security.selinux"
}

// Whiteouts (layer.md): ".wh.NAME" hides NAME of the layers below, the opaque
// mark hides all they have in its directory. Other names that begin like the
// mark are AUFS's own and mean nothing.
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// whiteout applies a whiteout entry. What it hides may well be absent, and the
// directory too: umoci writes whiteouts below what the same layer replaced.
func (m *Merger) whiteout(parents []string, mark string) error {
	stack, err := m.lookupDir(parents, false)
	if errors.Is(err, errMissing) || errors.Is(err, errNotDir) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := stack[len(stack)-1]
	name := mark[len(whiteoutPrefix):]
	switch {
	case mark == whiteoutOpaque:
		for _, name := range slices.Collect(maps.Keys(dir.Children)) {
			m.removeLower(dir, name)
		}
	case strings.HasPrefix(mark, whiteoutMeta):
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("whiteout of %q: %w", name, ErrEntry)
	default:
		m.removeLower(dir, name)
	}
	return nil
}

// removeLower removes name, except for what the present layer has put there or
// below: whiteouts are about the layers underneath, wherever they stand.
func (m *Merger) removeLower(dir *erofs.Node, name string) {
	child := dir.Children[name]
	switch {
	case child == nil:
	case m.touched[nameKey{dir, name}] == 0:
		m.unlink(child)
		delete(dir.Children, name)
	case child.IsDir():
		for _, below := range slices.Collect(maps.Keys(child.Children)) {
			m.removeLower(child, below)
		}
	}
}
