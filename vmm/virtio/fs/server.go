package fs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// ErrRequest reports a request without room for its header or its reply's.
var ErrRequest = errors.New("malformed file system request")

const (
	maxXattr  = 64 << 10          // XATTR_SIZE_MAX
	maxBody   = maxXattr + 4096   // of a request other than WRITE
	maxReply  = 64<<10 + replyLen // of a reply other than READ's
	maxIovecs = queueSize + 8     // pieces of a chain; below IOV_MAX
	nameMax   = unix.NAME_MAX     // bytes of a name
	pathMax   = unix.PathMax      // bytes of a symbolic link, NUL included
	maxCopy   = 64 << 20          // bytes one COPY_FILE_RANGE copies
	dirBuf    = 32 << 10          // bytes one getdents64 reads
)

// server answers FUSE requests. It is not safe for concurrent use.
type server struct {
	readOnly  bool
	root      bool // this process is root: new files get the caller's owner
	procFD    int  // /proc/self/fd, to open again what an O_PATH descriptor names
	file      int  // what is shared, if it is a file; else -1
	inited    bool
	inodes    table
	handles   map[uint64]*handle
	nextFH    uint64
	r         request
	in        []byte       // copy of the request's body
	out       []byte       // reply, header included
	dirents   []byte       // of getdents64
	iov       []unix.Iovec // of the request under way
	st        unix.Stat_t  // here, for none is allocated
	how       unix.OpenHow
	procDigit [24]byte
}

// request is the request under way.
type request struct {
	header
	chain *queue.Chain
	body  []byte // what follows the header; of WRITE, without the data
	room  int    // bytes for the reply's body
	data  int    // bytes of WRITE's data
}

// operation is how one opcode is served.
type operation struct {
	body   int // least length of the request's body
	reply  int // least room for the reply's body
	writes bool
	// run appends the reply's body to s.out.
	run func(s *server, r *request) unix.Errno
}

// operations by opcode; what is not here is ENOSYS.
var operations = [opCount]operation{
	opInit:          {16, initOutLen, false, (*server).init},
	opDestroy:       {0, 0, false, (*server).destroy},
	opLookup:        {2, entryOutLen, false, (*server).lookup},
	opForget:        {8, 0, false, (*server).forget},
	opBatchForget:   {8, 0, false, (*server).batchForget},
	opInterrupt:     {8, 0, false, (*server).interrupt},
	opGetattr:       {16, attrOutLen, false, (*server).getattr},
	opSetattr:       {88, attrOutLen, true, (*server).setattr},
	opReadlink:      {0, 1, false, (*server).readlink},
	opStatfs:        {0, statfsOutLen, false, (*server).statfs},
	opSymlink:       {4, entryOutLen, true, (*server).symlink},
	opMknod:         {18, entryOutLen, true, (*server).mknod},
	opMkdir:         {10, entryOutLen, true, (*server).mkdir},
	opUnlink:        {2, 0, true, (*server).unlink},
	opRmdir:         {2, 0, true, (*server).rmdir},
	opRename:        {12, 0, true, (*server).rename},
	opRename2:       {20, 0, true, (*server).rename2},
	opLink:          {10, entryOutLen, true, (*server).link},
	opCreate:        {18, createOutLen, true, (*server).create},
	opTmpfile:       {16, createOutLen, true, (*server).tmpfile},
	opOpen:          {8, openOutLen, false, (*server).open},
	opRead:          {40, 0, false, (*server).read},
	opWrite:         {writeInLen, 8, true, (*server).write},
	opRelease:       {24, 0, false, (*server).release},
	opFlush:         {24, 0, false, (*server).flush},
	opFsync:         {16, 0, false, (*server).fsync},
	opFallocate:     {32, 0, true, (*server).fallocate},
	opLseek:         {24, 8, false, (*server).lseek},
	opCopyFileRange: {56, 8, true, (*server).copyFileRange},
	opOpendir:       {8, openOutLen, false, (*server).opendir},
	opReaddir:       {40, 0, false, (*server).readdir},
	opReaddirplus:   {40, 0, false, (*server).readdirplus},
	opReleasedir:    {24, 0, false, (*server).release},
	opFsyncdir:      {16, 0, false, (*server).fsync},
	opSetxattr:      {10, 0, true, (*server).setxattr},
	opGetxattr:      {10, 0, false, (*server).getxattr},
	opListxattr:     {8, 0, false, (*server).listxattr},
	opRemovexattr:   {2, 0, true, (*server).removexattr},
}

func newServer(o Options) (*server, error) {
	s := &server{
		readOnly: o.ReadOnly, root: unix.Geteuid() == 0, procFD: -1, file: -1,
		handles: map[uint64]*handle{},
		in:      make([]byte, maxBody), out: make([]byte, 0, maxReply),
		dirents: make([]byte, dirBuf), iov: make([]unix.Iovec, 0, maxIovecs),
	}
	root, err := s.openRoot(o.Dir)
	if err == nil {
		s.procFD, err = openPath("/proc/self/fd", unix.O_DIRECTORY)
	}
	if err == nil {
		err = s.inodes.open(root, o.MaxInodes)
	}
	if err != nil {
		for _, fd := range []int{root, s.procFD, s.file} {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
		return nil, err
	}
	return s, nil
}

// openRoot opens the directory that is the guest's root. For a single file that
// is one that was removed as soon as it was made: nothing can be in it.
func (s *server) openRoot(path string) (int, error) {
	fd, err := openPath(path, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Fstat(fd, &s.st); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	switch s.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return fd, nil
	case unix.S_IFREG:
		s.file = fd
	default:
		_ = unix.Close(fd)
		return -1, errors.New("neither a directory nor a regular file")
	}
	dir, err := os.MkdirTemp("", "duplex-share-")
	if err != nil {
		return -1, err
	}
	fd, err = openPath(dir, unix.O_DIRECTORY)
	if rerr := os.Remove(dir); err == nil && rerr != nil {
		_ = unix.Close(fd)
		return -1, rerr
	}
	return fd, err
}

func openPath(path string, flags int) (int, error) {
	fd, err := unix.Open(path, flags|unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

func total(bufs [][]byte) int {
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	return n
}

// serve answers one request and returns the length of the reply. Its errors are
// violations of the framing; a request that is merely wrong has its error in the
// reply.
func (s *server) serve(c *queue.Chain) (uint32, error) {
	readable, writable := total(c.Readable), total(c.Writable)
	var raw [headerLen]byte
	if c.CopyOut(raw[:], 0) < headerLen {
		return 0, fmt.Errorf("%w: %d bytes readable", ErrRequest, readable)
	}
	r := &s.r
	*r = request{header: parseHeader(&raw), chain: c, room: max(writable-replyLen, 0)}
	silent := r.opcode == opForget || r.opcode == opBatchForget || r.opcode == opInterrupt
	if !silent && writable < replyLen {
		return 0, fmt.Errorf("%w: %d bytes writable", ErrRequest, writable)
	}
	s.out = append(s.out[:0], make([]byte, replyLen)...)
	e := s.dispatch(r, readable)
	if silent {
		return 0, nil
	}
	n := len(s.out)
	if e != 0 {
		n = replyLen
	}
	if r.opcode == opRead && e == 0 {
		n += r.data // already in place
	}
	le.PutUint32(s.out[0:], uint32(n))
	le.PutUint32(s.out[4:], uint32(-int32(e)))
	le.PutUint64(s.out[8:], r.unique)
	c.CopyIn(s.out[:min(n, len(s.out))], 0)
	return uint32(n), nil
}

// dispatch checks what all operations have in common and runs one.
func (s *server) dispatch(r *request, readable int) unix.Errno {
	if uint64(r.len) != uint64(readable) {
		return unix.EINVAL // the length lies
	}
	if r.opcode >= opCount || operations[r.opcode].run == nil {
		return unix.ENOSYS
	}
	op := &operations[r.opcode]
	n := readable - headerLen
	if r.opcode == opWrite && n > writeInLen {
		n, r.data = writeInLen, n-writeInLen
	}
	switch {
	case n < op.body || r.room < op.reply:
		return unix.EINVAL
	case n > maxBody:
		return unix.E2BIG
	case !s.inited && r.opcode != opInit:
		return unix.EIO
	case s.readOnly && op.writes:
		return unix.EROFS
	}
	r.body = s.in[:r.chain.CopyOut(s.in[:n], headerLen)]
	e := op.run(s, r)
	if e == 0 && len(s.out)-replyLen > r.room {
		e = unix.EINVAL
	}
	return e
}

// u32 and u64 read the request's body; the offset lies below operation.body.
func (r *request) u32(off int) uint32 { return le.Uint32(r.body[off:]) }
func (r *request) u64(off int) uint64 { return le.Uint64(r.body[off:]) }

// init negotiates (FUSE_INIT). Whatever an earlier session left is let go.
func (s *server) init(r *request) unix.Errno {
	major, minor := r.u32(0), r.u32(4)
	if major != protoMajor || minor < protoMinMinor {
		return unix.EPROTO
	}
	s.end()
	const wanted = initAsyncRead | initAtomicTrunc | initBigWrites | initAutoInvalData |
		initReaddirplus | initReaddirplusAuto | initAsyncDIO | initParallelDirops |
		initMaxPages | initKillprivV2
	flags := r.u32(12) & wanted
	p := le.AppendUint32(s.out, protoMajor)
	p = le.AppendUint32(p, min(minor, protoMinor))
	p = le.AppendUint32(p, r.u32(8)) // max_readahead: the guest's own
	p = le.AppendUint32(p, flags)
	p = le.AppendUint16(p, 64) // max_background
	p = le.AppendUint16(p, 48) // congestion_threshold
	p = le.AppendUint32(p, MaxIO)
	p = le.AppendUint32(p, 1)          // time_gran in nanoseconds
	p = le.AppendUint16(p, MaxIO/4096) // max_pages
	s.out = append(p, make([]byte, initOutLen-(len(p)-replyLen))...)
	s.inited = true
	return 0
}

// destroy ends the session (FUSE_DESTROY).
func (s *server) destroy(*request) unix.Errno {
	s.end()
	return 0
}

// interrupt is ignored: requests are served at once, or not at all.
func (s *server) interrupt(*request) unix.Errno { return 0 }

// end closes whatever the guest knows.
func (s *server) end() {
	s.inited = false
	for fh, h := range s.handles {
		_ = unix.Close(h.fd)
		delete(s.handles, fh)
	}
	s.inodes.clear()
}

// close releases the server, for good.
func (s *server) close() error {
	s.end()
	err := errors.Join(s.inodes.close(), unix.Close(s.procFD))
	if s.file >= 0 {
		err = errors.Join(err, unix.Close(s.file))
	}
	return err
}
