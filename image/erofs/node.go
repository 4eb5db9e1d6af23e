package erofs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Node is one inode. Several names of one file (hard links) are several
// entries, in any directories, that point to the same Node.
type Node struct {
	// Mode is st_mode: the type bits of S_IFMT and the permissions with
	// setuid, setgid and sticky.
	Mode uint32
	UID  uint32
	GID  uint32
	// Sec and Nsec are the modification time; Nsec is below 1e9.
	Sec  int64
	Nsec uint32
	// Major and Minor number a character or block device.
	Major, Minor uint32
	// Xattrs by full name ("security.capability").
	Xattrs map[string]string
	// Target of a symbolic link, 1 to 4095 bytes.
	Target string
	// Data of a regular file, from Writer.Add; the zero value is an empty file.
	Data Data
	// Children of a directory by name.
	Children map[string]*Node

	// Set by Writer.Finish.
	parent *Node
	names  []string // sorted, with "." and ".."
	nid    uint64
	nlink  uint32
	size   int64
	block  uint32
	inline bool
	xattrs []byte
}

// Data is where a regular file's bytes are: in the image or, while that is being
// written and the file is small, in the Writer's spool.
type Data struct {
	at    int64 // byte offset
	size  int64
	small bool
}

// Size returns the number of bytes.
func (d Data) Size() int64 { return d.size }

// Type returns the type bits of Mode.
func (n *Node) Type() uint32 { return n.Mode & unix.S_IFMT }

// IsDir reports whether n is a directory.
func (n *Node) IsDir() bool { return n.Type() == unix.S_IFDIR }

// ErrUnsupported reports something that an EROFS image cannot hold.
var ErrUnsupported = errors.New("cannot be stored in EROFS")

const (
	maxName      = 255
	maxTarget    = 4095
	maxXattrBody = 1 << 16 // bytes an inode; Linux limits a value to 64 KiB
)

func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("name %q: not a file name", name)
	case len(name) > maxName:
		return fmt.Errorf("name %.32q...: longer than %d bytes", name, maxName)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("name %q: holds a slash or NUL", name)
	}
	return nil
}

// xattrPrefixes are the name prefixes EROFS stores as one byte
// (EROFS_XATTR_INDEX_*); the two ACL names are whole names.
var xattrPrefixes = []struct {
	prefix string
	index  uint8
	whole  bool
}{
	{"user.", 1, false},
	{"system.posix_acl_access", 2, true},
	{"system.posix_acl_default", 3, true},
	{"trusted.", 4, false},
	{"security.", 6, false},
}

func splitXattr(name string) (index uint8, rest string, ok bool) {
	for _, p := range xattrPrefixes {
		rest, found := strings.CutPrefix(name, p.prefix)
		if found && (rest == "") == p.whole {
			return p.index, rest, true
		}
	}
	return 0, "", false
}

// KnownXattr reports whether an attribute of that name can be stored: the user,
// trusted and security namespaces and the two POSIX ACLs.
func KnownXattr(name string) bool {
	_, rest, ok := splitXattr(name)
	return ok && len(rest) <= maxName && !strings.ContainsRune(name, 0)
}

// CheckXattrs returns an error, ErrUnsupported, when an inode cannot hold attrs.
func CheckXattrs(attrs map[string]string) error {
	_, err := encodeXattrs(attrs)
	return err
}

// encodeXattrs returns the body that follows an inode: a 12-byte header without
// shared attributes, then the entries, each padded to 4 bytes.
func encodeXattrs(attrs map[string]string) ([]byte, error) {
	if len(attrs) == 0 {
		return nil, nil
	}
	type attr struct {
		index      uint8
		name, full string
	}
	list := make([]attr, 0, len(attrs))
	for full := range attrs {
		index, name, ok := splitXattr(full)
		if !ok || !KnownXattr(full) {
			return nil, fmt.Errorf("xattr %q: %w", full, ErrUnsupported)
		}
		list = append(list, attr{index, name, full})
	}
	slices.SortFunc(list, func(a, b attr) int { return cmp.Compare(a.full, b.full) })
	body := make([]byte, 12)
	for _, a := range list {
		value := attrs[a.full]
		if len(value) > maxXattrBody-1 {
			return nil, fmt.Errorf("xattr %q of %d bytes: %w", a.full, len(value), ErrUnsupported)
		}
		body = append(body, byte(len(a.name)), a.index, byte(len(value)), byte(len(value)>>8))
		body = append(body, a.name...)
		body = append(body, value...)
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
	}
	if len(body) > maxXattrBody {
		return nil, fmt.Errorf("%d bytes of xattrs: %w", len(body), ErrUnsupported)
	}
	return body, nil
}
