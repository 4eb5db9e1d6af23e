package erofs

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	inodeSize  = 64 // extended inode
	direntSize = 12
	slotSize   = 32 // nids count in these
	// firstInode leaves nid 0 unused: user space takes inode 0 for "no file".
	firstInode = 64
)

// layout is the order and size of all metadata.
type layout struct {
	order []*Node // as written, the root first
	end   uint64  // bytes of metadata
}

// plan links the tree, checks it and gives every inode its place.
func (w *Writer) plan(root *Node) (*layout, error) {
	if root == nil || !root.IsDir() {
		return nil, errors.New("root: not a directory")
	}
	l := &layout{end: firstInode}
	if err := l.link(root, root, "/"); err != nil {
		return nil, err
	}
	for _, n := range l.order {
		if err := w.place(l, n); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// link numbers n and what is below it, a directory's files together and before
// its directories, and counts links.
func (l *layout) link(n, parent *Node, path string) error {
	if err := check(n); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	n.parent, n.nlink = parent, 2
	l.order = append(l.order, n)
	n.names = make([]string, 0, len(n.Children)+2)
	n.names = append(n.names, ".", "..")
	for name := range n.Children {
		if err := checkName(name); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		n.names = append(n.names, name)
	}
	slices.Sort(n.names) // by byte, "." and ".." among the others: the kernel bisects
	for _, name := range n.names {
		child := n.Children[name]
		if child == nil || child.IsDir() {
			continue
		}
		if child.nlink++; child.nlink > 1 {
			continue // a further name of a file that has its place
		}
		if err := check(child); err != nil {
			return fmt.Errorf("%s/%s: %w", path, name, err)
		}
		l.order = append(l.order, child)
	}
	for _, name := range n.names {
		child := n.Children[name]
		if child == nil || !child.IsDir() {
			continue
		}
		if child.parent != nil {
			return fmt.Errorf("%s/%s: a directory with two names", path, name)
		}
		n.nlink++
		if err := l.link(child, n, path+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

func check(n *Node) error {
	if n.Mode&^uint32(unix.S_IFMT|0o7777) != 0 {
		return fmt.Errorf("mode %#o: unknown bits", n.Mode)
	}
	if n.Nsec >= 1e9 {
		return fmt.Errorf("modification time: %d ns", n.Nsec)
	}
	switch n.Type() {
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFDIR:
	case unix.S_IFLNK:
		if n.Target == "" || len(n.Target) > maxTarget {
			return fmt.Errorf("link target of %d bytes: %w", len(n.Target), ErrUnsupported)
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		if n.Major >= 1<<12 || n.Minor >= 1<<20 {
			return fmt.Errorf("device %d:%d: %w", n.Major, n.Minor, ErrUnsupported)
		}
	default:
		return fmt.Errorf("file type %#o: %w", n.Type(), ErrUnsupported)
	}
	return nil
}

// place decides where n's contents and inode go.
func (w *Writer) place(l *layout, n *Node) error {
	var err error
	if n.xattrs, err = encodeXattrs(n.Xattrs); err != nil {
		return err
	}
	record := uint64(inodeSize + len(n.xattrs))
	switch n.Type() {
	case unix.S_IFREG:
		n.size, n.block = n.Data.size, uint32(n.Data.at/blockSize)
	case unix.S_IFLNK:
		n.size = int64(len(n.Target))
	case unix.S_IFDIR:
		n.size = dirSize(n.names)
	}
	if n.packed() {
		// The tail of a directory, or a whole link or small file, sits behind
		// the inode when all of it fits into one block; Linux refuses a link
		// that straddles.
		tail := uint64(n.size) % blockSize
		if n.inline = tail != 0 && record+tail <= blockSize; n.inline {
			record += tail
		}
		whole := blocks(n.size)
		if n.inline {
			whole--
		}
		if whole > maxBlocks-uint64(w.next) {
			return tooManyBlocks()
		}
		n.block = w.next
		w.next += uint32(whole)
	}
	l.end = alignUp(l.end, inodeSize) // an inode never straddles blocks
	if n.inline && l.end%blockSize+record > blockSize {
		l.end = alignUp(l.end, blockSize)
	}
	n.nid = l.end / slotSize
	l.end += record
	return nil
}

// packed reports whether n's contents are written with the metadata.
func (n *Node) packed() bool {
	return n.IsDir() || n.Type() == unix.S_IFLNK || n.Type() == unix.S_IFREG && n.Data.small
}

// dirSize returns the size of a directory with these sorted names. Each block
// holds as many as fit: 12 bytes and the name for each.
func dirSize(names []string) int64 {
	var whole, used int64
	for _, name := range names {
		need := int64(direntSize + len(name))
		if used+need > blockSize {
			whole++
			used = 0
		}
		used += need
	}
	return whole*blockSize + used
}

func alignUp(v, to uint64) uint64 { return (v + to - 1) / to * to }
