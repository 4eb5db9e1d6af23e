package layer

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/image/erofs"
)

// Errors of a directory that is not in the tree.
var (
	errMissing = errors.New("not in the image")
	errNotDir  = fmt.Errorf("no directory: %w", ErrEntry)
)

// split takes a path of an archive apart. A leading slash means the image's
// root, as it does for docker.
func split(path string) ([]string, error) {
	switch {
	case len(path) > maxPath:
		return nil, fmt.Errorf("path of %d bytes: %w", len(path), ErrLimit)
	case strings.ContainsRune(path, 0):
		return nil, fmt.Errorf("NUL in path: %w", ErrEntry)
	}
	var elems []string
	for e := range strings.SplitSeq(path, "/") {
		switch {
		case e == "" || e == ".":
		case e == "..":
			return nil, fmt.Errorf("%q in path: %w", e, ErrEscape)
		case len(e) > maxName:
			return nil, fmt.Errorf("file name of %d bytes: %w", len(e), ErrLimit)
		default:
			elems = append(elems, e)
		}
	}
	return elems, nil
}

// lookupDir finds a directory, following symbolic links as long as they stay
// inside, and returns the directories passed, the last being the one found. A
// missing one is made, with mode 0755 and owner 0:0, if create is set.
func (m *Merger) lookupDir(elems []string, create bool) ([]*erofs.Node, error) {
	stack := []*erofs.Node{m.root}
	todo := slices.Clone(elems)
	slices.Reverse(todo)
	for links := 0; len(todo) > 0; {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		dir := stack[len(stack)-1]
		child := dir.Children[name]
		switch {
		case name == "" || name == ".": // these three only in link targets
		case name == ".." && len(stack) == 1:
			return nil, fmt.Errorf("passes a symbolic link that %w", ErrEscape)
		case name == "..":
			stack = stack[:len(stack)-1]
		case child == nil && !create:
			return nil, errMissing
		case child == nil:
			child = &erofs.Node{Mode: unix.S_IFDIR | 0o755, Children: map[string]*erofs.Node{}}
			if err := m.attach(dir, name, child); err != nil {
				return nil, err
			}
			stack = append(stack, child)
		case child.IsDir():
			if create {
				m.touch(dir, name, implicit)
			}
			stack = append(stack, child)
		case child.Type() == unix.S_IFLNK:
			if links++; links > maxLinks {
				return nil, fmt.Errorf("passes %d symbolic links: %w", links, ErrLimit)
			}
			if strings.HasPrefix(child.Target, "/") {
				return nil, fmt.Errorf("passes symbolic link %q to %q, which %w", name, child.Target, ErrEscape)
			}
			target := strings.Split(child.Target, "/")
			slices.Reverse(target)
			todo = append(todo, target...)
		default:
			return nil, fmt.Errorf("passes %q, which is %w", name, errNotDir)
		}
		if len(stack) > maxDepth {
			return nil, fmt.Errorf("more than %d directories deep: %w", maxDepth, ErrLimit)
		}
	}
	return stack, nil
}

// origin says how a name came to be in the present layer.
type origin uint8

const (
	implicit origin = iota + 1 // as a directory above an entry
	explicit                   // as an entry
)

// nameKey is one name in one directory.
type nameKey struct {
	dir  *erofs.Node
	name string
}

func (m *Merger) touch(dir *erofs.Node, name string, o origin) {
	key := nameKey{dir, name}
	m.touched[key] = max(m.touched[key], o)
}

// attach puts n at a name, in place of what was there, and accounts for it.
func (m *Merger) attach(dir *erofs.Node, name string, n *erofs.Node) error {
	if err := m.spend(int64(len(name))); err != nil {
		return err
	}
	if old := dir.Children[name]; old != nil {
		m.unlink(old)
	}
	dir.Children[name] = n
	m.touch(dir, name, implicit)
	return nil
}

// unlink drops one name of n, and what is below it; contents that have lost
// their last name are given back.
func (m *Merger) unlink(n *erofs.Node) {
	if extra := m.links[n]; extra > 0 {
		m.links[n] = extra - 1
		return
	}
	m.out.Discard(n.Data)
	for _, child := range n.Children {
		m.unlink(child)
	}
}
