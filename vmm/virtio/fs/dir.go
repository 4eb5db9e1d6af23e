package fs

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// readdir: FUSE_READDIR.
func (s *server) readdir(r *request) unix.Errno { return s.list(r, false) }

// readdirplus: FUSE_READDIRPLUS, which looks every name up along the way.
func (s *server) readdirplus(r *request) unix.Errno { return s.list(r, true) }

// list fills the reply with entries from the directory's position on. What
// getdents64 read beyond it is read again by the next request.
func (s *server) list(r *request, plus bool) unix.Errno {
	h, e := s.handle(r.u64(0), true)
	if e != 0 {
		return e
	}
	dir, e := s.dir(r.nodeID)
	if e != 0 {
		return e
	}
	off, size := int64(r.u64(8)), int(min(r.u32(16), maxReply-replyLen))
	if size > r.room {
		return unix.EINVAL
	}
	if off != h.off {
		if _, err := unix.Seek(h.fd, off, unix.SEEK_SET); err != nil {
			return errno(err)
		}
		h.off = off
	}
	limit := replyLen + size
	for {
		want := min(dirBuf, limit-len(s.out))
		if plus { // an entry is longer for the guest than here
			want = max(want/4, 512)
		}
		got, err := unix.Getdents(h.fd, s.dirents[:max(want, 512)])
		if err != nil {
			if len(s.out) > replyLen {
				return 0
			}
			return errno(err)
		}
		if got == 0 {
			return 0
		}
		full, e := s.entries(h, dir, s.dirents[:got], limit, plus)
		if full || e != 0 {
			return e
		}
	}
}

// entries appends what getdents64 read, and says whether the reply is full.
func (s *server) entries(h *handle, dir *inode, p []byte, limit int, plus bool) (bool, unix.Errno) {
	for len(p) >= 19 {
		ino, next := le.Uint64(p), int64(le.Uint64(p[8:]))
		n, kind := int(le.Uint16(p[16:])), p[18]
		if n < 20 || n > len(p) {
			return false, unix.EIO
		}
		name := p[19:n]
		name = name[:bytes.IndexByte(name, 0)+1]
		need := (direntLen + len(name) - 1 + 7) &^ 7
		if plus {
			need += entryOutLen
		}
		if len(s.out)+need > limit {
			h.off = -1 // the descriptor is further on
			if len(s.out) == replyLen {
				return true, unix.EINVAL // no room for one
			}
			return true, 0
		}
		if plus {
			s.plus(dir, name, ino, kind)
		}
		s.dirent(ino, uint64(next), kind, name[:len(name)-1])
		h.off = next
		p = p[n:]
	}
	return false, 0
}

// plus appends struct fuse_entry_out for one name; one that cannot be looked up
// has node id 0, and the guest looks it up by itself.
func (s *server) plus(dir *inode, name cname, ino uint64, kind byte) {
	if string(name) != ".\x00" && string(name) != "..\x00" {
		if n, e := s.find(dir, name); e == 0 {
			s.out = appendEntry(s.out, n.id, &s.st)
			return
		}
	}
	s.st = unix.Stat_t{Ino: ino, Mode: uint32(kind) << 12}
	s.out = appendEntry(s.out, 0, &s.st)
}

// dirent appends struct fuse_dirent.
func (s *server) dirent(ino, next uint64, kind byte, name []byte) {
	p := le.AppendUint64(s.out, ino)
	p = le.AppendUint64(p, next)
	p = le.AppendUint32(p, uint32(len(name)))
	p = le.AppendUint32(p, uint32(kind))
	p = append(p, name...)
	for (len(p)-replyLen)%8 != 0 {
		p = append(p, 0)
	}
	s.out = p
}
