package fs

import (
	"golang.org/x/sys/unix"
)

// rwfAppend is RWF_APPEND of pwritev2(2).
const rwfAppend = 0x10

// read: FUSE_READ, from the file straight into the guest's memory.
func (s *server) read(r *request) unix.Errno {
	h, e := s.handle(r.u64(0), false)
	if e != 0 {
		return e
	}
	off, size := r.u64(8), r.u32(16)
	if uint64(size) > uint64(r.room) || size > MaxIO || off > 1<<63-1-MaxIO {
		return unix.EINVAL
	}
	n := int(size)
	for r.data < n {
		s.iov = vectors(s.iov[:0], r.chain.Writable, replyLen+r.data, n-r.data)
		got, e := preadv(h.fd, s.iov[:min(len(s.iov), maxIovecs)], off+uint64(r.data))
		switch {
		case e == unix.EINTR:
			continue
		case e != 0 && r.data == 0:
			return e
		case e != 0 || got == 0:
			return 0
		}
		r.data += got
	}
	return 0
}

// write: FUSE_WRITE, from the guest's memory straight into the file.
func (s *server) write(r *request) unix.Errno {
	h, e := s.handle(r.u64(0), false)
	if e != 0 {
		return e
	}
	off, size := r.u64(8), r.u32(16)
	if uint64(size) != uint64(r.data) || size > MaxIO || off > 1<<63-1-MaxIO {
		return unix.EINVAL
	}
	flags := 0
	if r.u32(32)&unix.O_APPEND != 0 {
		flags = rwfAppend
	}
	done, n := 0, int(size)
	for done < n {
		s.iov = vectors(s.iov[:0], r.chain.Readable, headerLen+writeInLen+done, n-done)
		put, e := pwritev2(h.fd, s.iov[:min(len(s.iov), maxIovecs)], off+uint64(done), flags)
		if e == unix.EINTR {
			continue
		}
		if e != 0 && done == 0 {
			return e
		}
		if e != 0 || put == 0 {
			break
		}
		done += put
	}
	if r.u32(20)&writeKillSuid != 0 {
		s.killSuid(h.fd)
	}
	s.out = le.AppendUint64(s.out, uint64(done)) // size, padding
	return 0
}

// flush: FUSE_FLUSH. Nothing is kept back, so there is nothing to do.
func (s *server) flush(r *request) unix.Errno {
	_, e := s.handle(r.u64(0), false)
	return e
}

// fsync: FUSE_FSYNC and FUSE_FSYNCDIR.
func (s *server) fsync(r *request) unix.Errno {
	h, e := s.handle(r.u64(0), r.opcode == opFsyncdir)
	if e != 0 {
		return e
	}
	const dataOnly = 1
	if r.u32(8)&dataOnly != 0 {
		return errno(unix.Fdatasync(h.fd))
	}
	return errno(unix.Fsync(h.fd))
}

// fallocate: FUSE_FALLOCATE.
func (s *server) fallocate(r *request) unix.Errno {
	h, e := s.handle(r.u64(0), false)
	if e != 0 {
		return e
	}
	off, n, mode := r.u64(8), r.u64(16), r.u32(24)
	const allowed = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE
	if mode&^allowed != 0 {
		return unix.EOPNOTSUPP
	}
	if off > 1<<63-1 || n > 1<<63-1 {
		return unix.EINVAL
	}
	return errno(unix.Fallocate(h.fd, mode, int64(off), int64(n)))
}

// lseek: FUSE_LSEEK, which is only for data and holes.
func (s *server) lseek(r *request) unix.Errno {
	h, e := s.handle(r.u64(0), false)
	if e != 0 {
		return e
	}
	off, whence := r.u64(8), r.u32(16)
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return unix.EINVAL
	}
	at, err := unix.Seek(h.fd, int64(off), int(whence))
	if err != nil {
		return errno(err)
	}
	s.out = le.AppendUint64(s.out, uint64(at))
	return 0
}

// copyFileRange: FUSE_COPY_FILE_RANGE; maxCopy bytes at most, and the guest asks
// again.
func (s *server) copyFileRange(r *request) unix.Errno {
	from, e := s.handle(r.u64(0), false)
	if e != 0 {
		return e
	}
	to, e := s.handle(r.u64(24), false)
	if e != 0 {
		return e
	}
	in, out := int64(r.u64(8)), int64(r.u64(32))
	n, err := unix.CopyFileRange(from.fd, &in, to.fd, &out, int(min(r.u64(40), maxCopy)), 0)
	if err != nil {
		return errno(err)
	}
	s.out = le.AppendUint64(s.out, uint64(n))
	return 0
}
