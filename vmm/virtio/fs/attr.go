package fs

import (
	"golang.org/x/sys/unix"
)

// getattr: FUSE_GETATTR.
func (s *server) getattr(r *request) unix.Errno {
	n, e := s.node(r.nodeID)
	if e != 0 {
		return e
	}
	return s.attr(n)
}

// attr replies with struct fuse_attr_out.
func (s *server) attr(n *inode) unix.Errno {
	if e := fstatat(n.fd, empty, &s.st); e != 0 {
		return e
	}
	s.out = appendAttrOut(s.out, &s.st)
	return 0
}

// setattr: FUSE_SETATTR.
func (s *server) setattr(r *request) unix.Errno {
	n, e := s.node(r.nodeID)
	if e != 0 {
		return e
	}
	valid := r.u32(0)
	if valid&(attrUID|attrGID) != 0 {
		uid, gid := -1, -1
		if valid&attrUID != 0 {
			uid = int(r.u32(76))
		}
		if valid&attrGID != 0 {
			gid = int(r.u32(80))
		}
		if e := errno(unix.Fchownat(n.fd, "", uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)); e != 0 {
			return e
		}
	}
	if valid&attrMode != 0 {
		if e := s.chmod(n, r.u32(68)&0o7777); e != 0 {
			return e
		}
	}
	if valid&attrSize != 0 {
		if e := s.truncate(n, r, valid); e != 0 {
			return e
		}
	}
	if valid&(attrAtime|attrMtime) != 0 {
		if e := setTimes(n, r, valid); e != 0 {
			return e
		}
	}
	return s.attr(n)
}

func (s *server) chmod(n *inode, mode uint32) unix.Errno {
	if n.kind == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	return errno(unix.Fchmodat(s.procFD, s.procName(n.fd).String(), mode, 0))
}

// truncate sets the size, by the handle that the guest names or one of its own.
func (s *server) truncate(n *inode, r *request, valid uint32) unix.Errno {
	size := r.u64(16)
	if size > 1<<63-1 {
		return unix.EINVAL
	}
	var fd int
	if valid&attrFH != 0 {
		h, e := s.handle(r.u64(8), false)
		if e != 0 {
			return e
		}
		fd = h.fd
	} else {
		own, e := s.reopen(n, unix.O_WRONLY)
		if e != 0 {
			return e
		}
		defer func() { _ = unix.Close(own) }()
		fd = own
	}
	if e := errno(unix.Ftruncate(fd, int64(size))); e != 0 {
		return e
	}
	if valid&attrKillSuid != 0 {
		s.killSuid(fd)
	}
	return 0
}

func setTimes(n *inode, r *request, valid uint32) unix.Errno {
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	for i, bit := range [2]uint32{attrAtime, attrMtime} {
		switch {
		case valid&bit == 0:
		case valid&[2]uint32{attrAtimeNow, attrMtimeNow}[i] != 0:
			times[i].Nsec = unix.UTIME_NOW
		default:
			nsec := r.u32(56 + 4*i)
			if nsec >= 1e9 {
				return unix.EINVAL
			}
			times[i] = unix.Timespec{Sec: int64(r.u64(32 + 8*i)), Nsec: int64(nsec)}
		}
	}
	return utimensat(n.fd, &times)
}

// readlink: FUSE_READLINK.
func (s *server) readlink(r *request) unix.Errno {
	n, e := s.node(r.nodeID)
	if e != 0 {
		return e
	}
	if n.kind != unix.S_IFLNK {
		return unix.EINVAL
	}
	buf := s.out[len(s.out) : len(s.out)+min(r.room, pathMax)]
	got, err := unix.Readlinkat(n.fd, "", buf)
	if err != nil {
		return errno(err)
	}
	s.out = s.out[:len(s.out)+got]
	return 0
}

// statfs: FUSE_STATFS.
func (s *server) statfs(r *request) unix.Errno {
	n, e := s.node(r.nodeID)
	if e != 0 {
		return e
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(n.fd, &st); err != nil {
		return errno(err)
	}
	p := s.out
	for _, v := range []uint64{st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree} {
		p = le.AppendUint64(p, v)
	}
	p = le.AppendUint32(p, uint32(st.Bsize))
	p = le.AppendUint32(p, uint32(st.Namelen))
	p = le.AppendUint32(p, uint32(st.Frsize))
	s.out = append(p, make([]byte, statfsOutLen-(len(p)-replyLen))...)
	return 0
}

// errno is the number of an error of package unix; 0 for nil.
func errno(err error) unix.Errno {
	if err == nil {
		return 0
	}
	if e, ok := err.(unix.Errno); ok { //nolint:errorlint // unix returns it bare
		return e
	}
	return unix.EIO
}
