package fs

import (
	"golang.org/x/sys/unix"
)

// handle is a file or directory that the guest opened.
type handle struct {
	fd  int
	dir bool
	off int64 // of a directory: where the descriptor stands
}

// newHandle takes over fd.
func (s *server) newHandle(fd int, dir bool) (uint64, unix.Errno) {
	if len(s.handles) >= MaxHandles {
		_ = unix.Close(fd)
		return 0, unix.EMFILE
	}
	s.nextFH++
	s.handles[s.nextFH] = &handle{fd: fd, dir: dir}
	return s.nextFH, 0
}

// handle is what the guest opened under the number fh.
func (s *server) handle(fh uint64, dir bool) (*handle, unix.Errno) {
	if h := s.handles[fh]; h != nil && h.dir == dir {
		return h, 0
	}
	return nil, unix.EBADF
}

// openFlags are the flags of open(2) that the guest's count for: its kernel sees
// to the others, or WRITE does (O_APPEND).
const openFlags = unix.O_ACCMODE | unix.O_TRUNC | unix.O_SYNC

// reopen opens an inode for input and output. It is refused for what is neither
// a regular file nor a directory: opening a FIFO may wait, and opening a device
// do anything.
func (s *server) reopen(n *inode, flags int) (int, unix.Errno) {
	switch n.kind {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		if flags&unix.O_ACCMODE != unix.O_RDONLY {
			return -1, unix.EISDIR
		}
	case unix.S_IFLNK:
		return -1, unix.ELOOP
	default:
		return -1, unix.ENXIO
	}
	// The link in /proc leads to this very inode, by whatever name.
	return openat(s.procFD, s.procName(n.fd), flags|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}

// open: FUSE_OPEN.
func (s *server) open(r *request) unix.Errno {
	n, e := s.node(r.nodeID)
	if e != 0 {
		return e
	}
	if n.kind == unix.S_IFDIR {
		return unix.EISDIR
	}
	flags := int(r.u32(0)) & openFlags
	if s.readOnly && (flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0) {
		return unix.EROFS
	}
	fd, e := s.reopen(n, flags)
	if e != 0 {
		return e
	}
	if flags&unix.O_TRUNC != 0 && r.u32(4)&openKillSuid != 0 {
		s.killSuid(fd)
	}
	fh, e := s.newHandle(fd, false)
	if e != 0 {
		return e
	}
	s.out = appendOpen(s.out, fh)
	return 0
}

// opendir: FUSE_OPENDIR.
func (s *server) opendir(r *request) unix.Errno {
	n, e := s.dir(r.nodeID)
	if e != 0 {
		return e
	}
	fd, e := s.reopen(n, unix.O_RDONLY|unix.O_DIRECTORY)
	if e != 0 {
		return e
	}
	fh, e := s.newHandle(fd, true)
	if e != 0 {
		return e
	}
	s.out = appendOpen(s.out, fh)
	return 0
}

// release: FUSE_RELEASE and FUSE_RELEASEDIR.
func (s *server) release(r *request) unix.Errno {
	fh := r.u64(0)
	h, e := s.handle(fh, r.opcode == opReleasedir)
	if e != 0 {
		return e
	}
	delete(s.handles, fh)
	_ = unix.Close(h.fd)
	return 0
}

// killSuid clears the set-user-ID and set-group-ID bits of an open file, as a
// write by somebody without CAP_FSETID does.
func (s *server) killSuid(fd int) {
	if fstatat(fd, empty, &s.st) != 0 {
		return
	}
	drop := s.st.Mode & unix.S_ISUID
	if s.st.Mode&unix.S_IXGRP != 0 {
		drop |= s.st.Mode & unix.S_ISGID
	}
	if drop != 0 {
		_ = unix.Fchmod(fd, s.st.Mode&0o7777&^drop)
	}
}
