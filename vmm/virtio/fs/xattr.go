package fs

import (
	"bytes"
	"strings"

	"golang.org/x/sys/unix"
)

// Only attributes user.* pass: the others mean something to the host's kernel.
const xattrPrefix = "user."

// openXattr opens a file for its attributes; only files and directories have
// attributes user.* (xattr(7)).
func (s *server) openXattr(r *request) (int, unix.Errno) {
	n, e := s.node(r.nodeID)
	if e != 0 {
		return -1, e
	}
	if n.kind != unix.S_IFREG && n.kind != unix.S_IFDIR {
		return -1, unix.EOPNOTSUPP
	}
	return s.reopen(n, unix.O_RDONLY)
}

func xattrName(p []byte) (name string, rest []byte, e unix.Errno) {
	c, rest, e := parseXattr(p)
	if e == 0 && !strings.HasPrefix(c, xattrPrefix) {
		e = unix.EOPNOTSUPP
	}
	return c, rest, e
}

// parseXattr takes a name off p; unlike a file's it may hold a slash.
func parseXattr(p []byte) (string, []byte, unix.Errno) {
	end := bytes.IndexByte(p, 0)
	switch {
	case end <= 0:
		return "", nil, unix.EINVAL
	case end > nameMax:
		return "", nil, unix.ERANGE
	}
	return string(p[:end]), p[end+1:], 0
}

// setxattr: FUSE_SETXATTR, without FUSE_SETXATTR_EXT.
func (s *server) setxattr(r *request) unix.Errno {
	name, value, e := xattrName(r.body[8:])
	if e != 0 {
		return e
	}
	if uint64(r.u32(0)) != uint64(len(value)) {
		return unix.EINVAL
	}
	fd, e := s.openXattr(r)
	if e != 0 {
		return e
	}
	defer func() { _ = unix.Close(fd) }()
	return errno(unix.Fsetxattr(fd, name, value, int(r.u32(4))))
}

// getxattr: FUSE_GETXATTR.
func (s *server) getxattr(r *request) unix.Errno {
	name, _, e := xattrName(r.body[8:])
	if e != 0 {
		return e
	}
	fd, e := s.openXattr(r)
	if e != 0 {
		return e
	}
	defer func() { _ = unix.Close(fd) }()
	return s.xattrReply(r, func(p []byte) (int, error) { return unix.Fgetxattr(fd, name, p) })
}

// listxattr: FUSE_LISTXATTR.
func (s *server) listxattr(r *request) unix.Errno {
	fd, e := s.openXattr(r)
	if e != 0 {
		return e
	}
	defer func() { _ = unix.Close(fd) }()
	return s.xattrReply(r, func(p []byte) (int, error) {
		all := make([]byte, maxXattr)
		n, err := unix.Flistxattr(fd, all)
		if err != nil {
			return 0, err
		}
		var own []byte
		for name := range bytes.SplitAfterSeq(all[:n], []byte{0}) {
			if bytes.HasPrefix(name, []byte(xattrPrefix)) {
				own = append(own, name...)
			}
		}
		if len(p) == 0 {
			return len(own), nil
		}
		if len(own) > len(p) {
			return 0, unix.ERANGE
		}
		return copy(p, own), nil
	})
}

// xattrReply answers with what get returns for a buffer of the size asked for;
// size 0 asks for the length, and none is needed in the buffer.
func (s *server) xattrReply(r *request, get func([]byte) (int, error)) unix.Errno {
	size := r.u32(0)
	if size == 0 {
		n, err := get(nil)
		if err != nil {
			return errno(err)
		}
		s.out = le.AppendUint64(s.out, uint64(n)) // size, padding
		return 0
	}
	n := min(int(min(size, maxXattr)), r.room)
	got, err := get(s.out[len(s.out) : len(s.out)+n])
	if err != nil {
		return errno(err)
	}
	s.out = s.out[:len(s.out)+got]
	return 0
}

// removexattr: FUSE_REMOVEXATTR.
func (s *server) removexattr(r *request) unix.Errno {
	name, rest, e := xattrName(r.body)
	if e != 0 {
		return e
	}
	if len(rest) != 0 {
		return unix.EINVAL
	}
	fd, e := s.openXattr(r)
	if e != 0 {
		return e
	}
	defer func() { _ = unix.Close(fd) }()
	return errno(unix.Fremovexattr(fd, name))
}
