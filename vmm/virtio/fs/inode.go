package fs

import (
	"bytes"
	"strconv"

	"golang.org/x/sys/unix"
)

// fileID identifies a file of the host while a descriptor of it is open.
type fileID struct{ dev, ino uint64 }

// inode is a file that the guest knows.
type inode struct {
	fd      int // O_PATH
	id      uint64
	file    fileID
	kind    uint32 // S_IFMT bits of the mode; they never change
	lookups uint64 // references the guest holds
}

// table has the inodes that the guest knows; the root is always there.
type table struct {
	root   inode
	max    int
	nextID uint64
	byID   map[uint64]*inode
	byFile map[fileID]*inode
}

// open takes over fd, a directory.
func (t *table) open(fd, max int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	t.root = inode{fd: fd, id: rootID, file: fileID{st.Dev, st.Ino}, kind: unix.S_IFDIR}
	t.max = max
	t.nextID = rootID + 1
	t.byID = map[uint64]*inode{}
	t.byFile = map[fileID]*inode{}
	t.clear()
	return nil
}

// clear forgets all inodes but the root. Ids are not used again.
func (t *table) clear() {
	for _, n := range t.byID {
		if n != &t.root {
			_ = unix.Close(n.fd)
		}
	}
	clear(t.byID)
	clear(t.byFile)
	t.byID[rootID] = &t.root
	t.byFile[t.root.file] = &t.root
}

func (t *table) close() error { return unix.Close(t.root.fd) }

// know counts a reference to the file that st is of, if the guest knows it.
func (t *table) know(st *unix.Stat_t) *inode {
	n := t.byFile[fileID{st.Dev, st.Ino}]
	if n != nil {
		n.lookups++
	}
	return n
}

// add takes over fd, an O_PATH descriptor of the file that st is of, and counts
// a reference.
func (t *table) add(fd int, st *unix.Stat_t) (*inode, unix.Errno) {
	if n := t.know(st); n != nil {
		_ = unix.Close(fd)
		return n, 0
	}
	if len(t.byID) > t.max {
		_ = unix.Close(fd)
		return nil, unix.ENFILE
	}
	n := &inode{fd: fd, id: t.nextID, file: fileID{st.Dev, st.Ino}, kind: st.Mode & unix.S_IFMT, lookups: 1}
	t.nextID++
	t.byID[n.id] = n
	t.byFile[n.file] = n
	return n, 0
}

// forget takes away references; a guest that returns more than it got has none.
func (t *table) forget(id, count uint64) {
	n := t.byID[id]
	if n == nil || n == &t.root {
		return
	}
	if n.lookups -= min(count, n.lookups); n.lookups == 0 {
		_ = unix.Close(n.fd)
		delete(t.byID, id)
		delete(t.byFile, n.file)
	}
}

// node is the inode that the request is about.
func (s *server) node(id uint64) (*inode, unix.Errno) {
	if n := s.inodes.byID[id]; n != nil {
		return n, 0
	}
	return nil, unix.ESTALE
}

// dir is node, where only a directory will do.
func (s *server) dir(id uint64) (*inode, unix.Errno) {
	n, e := s.node(id)
	if e == 0 && n.kind != unix.S_IFDIR {
		e = unix.ENOTDIR
	}
	return n, e
}

// parseName takes one file name off p: NUL-terminated, not empty, "." or "..",
// without a slash, of at most 255 bytes.
func parseName(p []byte) (name cname, rest []byte, e unix.Errno) {
	end := bytes.IndexByte(p, 0)
	switch {
	case end <= 0:
		return nil, nil, unix.EINVAL
	case end > nameMax:
		return nil, nil, unix.ENAMETOOLONG
	}
	name, rest = p[:end+1], p[end+1:]
	if bytes.IndexByte(name, '/') >= 0 || string(name) == ".\x00" || string(name) == "..\x00" {
		return nil, nil, unix.EINVAL
	}
	return name, rest, 0
}

// onlyName is parseName where nothing follows the name.
func onlyName(p []byte) (cname, unix.Errno) {
	name, rest, e := parseName(p)
	if e == 0 && len(rest) != 0 {
		e = unix.EINVAL
	}
	return name, e
}

func (c cname) String() string { return string(c[:len(c)-1]) }

// procName is the name of descriptor fd below procFD.
func (s *server) procName(fd int) cname {
	return append(strconv.AppendInt(s.procDigit[:0], int64(fd), 10), 0)
}

// find looks name up below the directory dir and counts a reference; s.st is the
// file's afterwards. Symbolic links are found, not followed.
func (s *server) find(dir *inode, name cname) (*inode, unix.Errno) {
	if s.file >= 0 && dir == &s.inodes.root && string(name) == FileName+"\x00" {
		return s.findFile()
	}
	if e := fstatat(dir.fd, name, &s.st); e != 0 {
		return nil, e
	}
	// A file that the guest knows is pinned by its descriptor: the numbers are
	// no other's.
	if n := s.inodes.know(&s.st); n != nil {
		return n, 0
	}
	s.how = unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, e := openat2(dir.fd, name, &s.how)
	if e != 0 {
		return nil, e
	}
	if e := fstatat(fd, empty, &s.st); e != 0 {
		_ = unix.Close(fd)
		return nil, e
	}
	return s.inodes.add(fd, &s.st)
}

// findFile is find for the one file that is shared.
func (s *server) findFile() (*inode, unix.Errno) {
	if e := fstatat(s.file, empty, &s.st); e != 0 {
		return nil, e
	}
	if n := s.inodes.know(&s.st); n != nil {
		return n, 0
	}
	fd, err := unix.FcntlInt(uintptr(s.file), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, errno(err)
	}
	return s.inodes.add(fd, &s.st)
}

// lookup: FUSE_LOOKUP.
func (s *server) lookup(r *request) unix.Errno {
	dir, e := s.dir(r.nodeID)
	if e != 0 {
		return e
	}
	name, e := onlyName(r.body)
	if e != 0 {
		return e
	}
	n, e := s.find(dir, name)
	if e != 0 {
		return e
	}
	s.out = appendEntry(s.out, n.id, &s.st)
	return 0
}

// forget: FUSE_FORGET.
func (s *server) forget(r *request) unix.Errno {
	s.inodes.forget(r.nodeID, r.u64(0))
	return 0
}

// batchForget: FUSE_BATCH_FORGET.
func (s *server) batchForget(r *request) unix.Errno {
	list := r.body[8:]
	for n := r.u32(0); n > 0 && len(list) >= 16; n-- {
		s.inodes.forget(le.Uint64(list), le.Uint64(list[8:]))
		list = list[16:]
	}
	return 0
}
