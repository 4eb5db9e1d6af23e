package fs

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// created replies with the new file name, after it gave it its owner and mode.
// The kind says what was made: whatever else is found there now, made by somebody
// on the host, is left as it is.
func (s *server) created(r *request, dir *inode, name cname, kind, mode uint32) (*inode, unix.Errno) {
	n, e := s.find(dir, name)
	if e != 0 {
		return nil, e
	}
	alone := kind == unix.S_IFDIR || s.st.Nlink == 1
	if n.kind == kind && n.lookups == 1 && alone && int(s.st.Uid) == unix.Geteuid() {
		if e := s.adopt(r, dir, n, mode); e != 0 {
			s.inodes.forget(n.id, 1)
			return nil, e
		}
	}
	s.out = appendEntry(s.out, n.id, &s.st)
	return n, 0
}

// adopt gives a new file the owner and mode that the guest wants; s.st is its
// state before and after.
func (s *server) adopt(r *request, dir *inode, n *inode, mode uint32) unix.Errno {
	changed := false
	uid, gid := r.uid, r.gid
	if s.root {
		var parent unix.Stat_t
		if e := fstatat(dir.fd, empty, &parent); e != 0 {
			return e
		}
		if parent.Mode&unix.S_ISGID != 0 { // the group is the directory's
			gid = s.st.Gid
			if n.kind == unix.S_IFDIR {
				mode |= unix.S_ISGID
			}
		}
		if uid != s.st.Uid || gid != s.st.Gid {
			if e := errno(unix.Fchownat(n.fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)); e != 0 {
				return e
			}
			changed = true
		}
	}
	if n.kind != unix.S_IFLNK && s.st.Mode&0o7777 != mode&0o7777 {
		if e := s.chmod(n, mode&0o7777); e != 0 {
			return e
		}
		changed = true
	}
	if changed {
		return fstatat(n.fd, empty, &s.st)
	}
	return 0
}

// symlink: FUSE_SYMLINK. What it points to is the guest's matter.
func (s *server) symlink(r *request) unix.Errno {
	dir, e := s.dir(r.nodeID)
	if e != 0 {
		return e
	}
	name, rest, e := parseName(r.body)
	if e != 0 {
		return e
	}
	end := bytes.IndexByte(rest, 0)
	if end <= 0 || end != len(rest)-1 {
		return unix.EINVAL
	}
	if e := errno(unix.Symlinkat(string(rest[:end]), dir.fd, name.String())); e != 0 {
		return e
	}
	_, e = s.created(r, dir, name, unix.S_IFLNK, 0)
	return e
}

// mknod: FUSE_MKNOD of files, FIFOs and sockets; device nodes are refused.
func (s *server) mknod(r *request) unix.Errno {
	dir, e := s.dir(r.nodeID)
	if e != 0 {
		return e
	}
	name, e := onlyName(r.body[16:])
	if e != 0 {
		return e
	}
	mode := r.u32(0)
	kind := mode & unix.S_IFMT
	switch kind {
	case 0, unix.S_IFREG:
		return s.mkfile(r, dir, name, mode)
	case unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return unix.EPERM
	}
	if e := errno(unix.Mknodat(dir.fd, name.String(), kind|mode&0o777, 0)); e != 0 {
		return e
	}
	_, e = s.created(r, dir, name, kind, mode)
	return e
}

// mkfile makes an empty regular file.
func (s *server) mkfile(r *request, dir *inode, name cname, mode uint32) unix.Errno {
	fd, e := openat(dir.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, mode&0o777)
	if e != 0 {
		return e
	}
	defer func() { _ = unix.Close(fd) }()
	n, e := s.adoptOpen(r, dir, fd, mode)
	if e == 0 {
		s.out = appendEntry(s.out, n.id, &s.st)
	} else if n != nil {
		s.inodes.forget(n.id, 1)
	}
	return e
}

// mkdir: FUSE_MKDIR.
func (s *server) mkdir(r *request) unix.Errno {
	dir, e := s.dir(r.nodeID)
	if e != 0 {
		return e
	}
	name, e := onlyName(r.body[8:])
	if e != 0 {
		return e
	}
	mode := r.u32(0)
	if e := errno(unix.Mkdirat(dir.fd, name.String(), mode&0o777)); e != 0 {
		return e
	}
	_, e = s.created(r, dir, name, unix.S_IFDIR, mode)
	return e
}

// create: FUSE_CREATE. A file that is there already is opened, unless O_EXCL.
func (s *server) create(r *request) unix.Errno {
	dir, e := s.dir(r.nodeID)
	if e != 0 {
		return e
	}
	name, e := onlyName(r.body[16:])
	if e != 0 {
		return e
	}
	flags, mode := int(r.u32(0)), r.u32(4)
	excl := flags&unix.O_EXCL != 0
	flags &= openFlags
	var n *inode
	fd, e := openat(dir.fd, name, flags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_NONBLOCK, mode&0o777)
	switch {
	case e == 0:
		n, e = s.adoptOpen(r, dir, fd, mode)
	case e == unix.EEXIST && !excl:
		if n, e = s.find(dir, name); e != 0 {
			return e
		}
		if fd, e = s.reopen(n, flags); e == 0 && flags&unix.O_TRUNC != 0 {
			if r.u32(12)&openKillSuid != 0 {
				s.killSuid(fd)
			}
			e = fstatat(n.fd, empty, &s.st)
		}
	default:
		return e
	}
	return s.opened(n, fd, e)
}

// tmpfile: FUSE_TMPFILE, a file without a name.
func (s *server) tmpfile(r *request) unix.Errno {
	dir, e := s.dir(r.nodeID)
	if e != 0 {
		return e
	}
	flags, mode := int(r.u32(0))&openFlags, r.u32(4)
	if flags&unix.O_ACCMODE == unix.O_RDONLY {
		return unix.EINVAL
	}
	fd, e := openat(dir.fd, cname(".\x00"), flags|unix.O_TMPFILE|int(r.u32(0))&unix.O_EXCL, mode&0o777)
	if e != 0 {
		return e
	}
	n, e := s.adoptOpen(r, dir, fd, mode)
	return s.opened(n, fd, e)
}

// adoptOpen makes an inode of the new file open as fd, which stays open.
func (s *server) adoptOpen(r *request, dir *inode, fd int, mode uint32) (*inode, unix.Errno) {
	path, e := openat(s.procFD, s.procName(fd), unix.O_PATH, 0)
	if e != 0 {
		return nil, e
	}
	if e := fstatat(path, empty, &s.st); e != 0 {
		_ = unix.Close(path)
		return nil, e
	}
	n, e := s.inodes.add(path, &s.st)
	if e != 0 {
		return nil, e
	}
	return n, s.adopt(r, dir, n, mode)
}

// opened replies to CREATE with the inode and a handle for fd, or gives both
// back when e says that something failed.
func (s *server) opened(n *inode, fd int, e unix.Errno) unix.Errno {
	var fh uint64
	if e == 0 {
		fh, e = s.newHandle(fd, false)
	} else if fd >= 0 {
		_ = unix.Close(fd)
	}
	if e != 0 {
		if n != nil {
			s.inodes.forget(n.id, 1)
		}
		return e
	}
	s.out = appendOpen(appendEntry(s.out, n.id, &s.st), fh)
	return 0
}

// link: FUSE_LINK.
func (s *server) link(r *request) unix.Errno {
	dir, e := s.dir(r.nodeID)
	if e != 0 {
		return e
	}
	n, e := s.node(r.u64(0))
	if e != 0 {
		return e
	}
	name, e := onlyName(r.body[8:])
	if e != 0 {
		return e
	}
	if n.kind == unix.S_IFDIR {
		return unix.EPERM
	}
	err := unix.Linkat(s.procFD, s.procName(n.fd).String(), dir.fd, name.String(), unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return errno(err)
	}
	if n, e = s.find(dir, name); e != 0 {
		return e
	}
	s.out = appendEntry(s.out, n.id, &s.st)
	return 0
}

// unlink: FUSE_UNLINK.
func (s *server) unlink(r *request) unix.Errno { return s.remove(r, 0) }

// rmdir: FUSE_RMDIR.
func (s *server) rmdir(r *request) unix.Errno { return s.remove(r, unix.AT_REMOVEDIR) }

func (s *server) remove(r *request, flags int) unix.Errno {
	dir, e := s.dir(r.nodeID)
	if e != 0 {
		return e
	}
	name, e := onlyName(r.body)
	if e != 0 {
		return e
	}
	return errno(unix.Unlinkat(dir.fd, name.String(), flags))
}

// rename: FUSE_RENAME.
func (s *server) rename(r *request) unix.Errno { return s.move(r, r.body[8:], 0) }

// rename2: FUSE_RENAME2.
func (s *server) rename2(r *request) unix.Errno {
	flags := r.u32(8)
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return unix.EINVAL // RENAME_WHITEOUT would make a device node
	}
	return s.move(r, r.body[16:], uint(flags))
}

func (s *server) move(r *request, names []byte, flags uint) unix.Errno {
	from, e := s.dir(r.nodeID)
	if e != 0 {
		return e
	}
	to, e := s.dir(r.u64(0))
	if e != 0 {
		return e
	}
	old, rest, e := parseName(names)
	if e != 0 {
		return e
	}
	name, e := onlyName(rest)
	if e != 0 {
		return e
	}
	return errno(unix.Renameat2(from.fd, old.String(), to.fd, name.String(), flags))
}
