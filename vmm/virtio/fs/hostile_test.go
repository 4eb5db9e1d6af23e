package fs

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// Requests that lie get an error, each its own, and the device goes on.
func TestHostileRequests(t *testing.T) {
	dir, canary := tree(t)
	c := newClient(t, Options{Dir: dir})
	file, sub := c.lookup(t, rootID, "file"), c.lookup(t, rootID, "dir")
	fh := c.open(t, opOpen, file, unix.O_RDWR)
	dh := c.open(t, opOpendir, rootID, 0)
	const far = 1 << 62
	for _, r := range []struct {
		what string
		op   uint32
		node uint64
		body []byte
		room uint32
		want unix.Errno
	}{
		{"name not terminated", opLookup, rootID, []byte("file"), entryOutLen, unix.EINVAL},
		{"empty name", opLookup, rootID, []byte{0, 0}, entryOutLen, unix.EINVAL},
		{"bytes after the name", opLookup, rootID, name("file", "x"), entryOutLen, unix.EINVAL},
		{"dot", opLookup, rootID, name("."), entryOutLen, unix.EINVAL},
		{"dot dot", opLookup, rootID, name(".."), entryOutLen, unix.EINVAL},
		{"path", opLookup, rootID, name("dir/inner"), entryOutLen, unix.EINVAL},
		{"climbing path", opLookup, rootID, name("../canary"), entryOutLen, unix.EINVAL},
		{"absolute path", opLookup, rootID, name(canary), entryOutLen, unix.EINVAL},
		{"name of 256", opLookup, rootID, name(strings.Repeat("x", 256)), entryOutLen, unix.ENAMETOOLONG},
		{"name of 60000", opLookup, rootID, name(strings.Repeat("x", 60000)), entryOutLen, unix.ENAMETOOLONG},
		{"request of 100000", opLookup, rootID, name(strings.Repeat("x", 100000)), entryOutLen, unix.E2BIG},
		{"below a file", opLookup, file, name("x"), entryOutLen, unix.ENOTDIR},
		{"no room for the reply", opLookup, rootID, name("file"), entryOutLen - 1, unix.EINVAL},
		{"unknown node", opGetattr, 12345, words(0, 0), attrOutLen, unix.ESTALE},
		{"node 0", opGetattr, 0, words(0, 0), attrOutLen, unix.ESTALE},
		{"body too short", opGetattr, rootID, words(0), attrOutLen, unix.EINVAL},
		{"unknown opcode", 63, rootID, nil, 100, unix.ENOSYS},
		{"opcode beyond the table", 1 << 31, rootID, nil, 100, unix.ENOSYS},
		{"ioctl", 39, rootID, make([]byte, 64), 100, unix.ENOSYS},
		{"unknown handle", opRead, file, readBody(99, 0, 10), 10, unix.EBADF},
		{"directory's handle", opRead, file, readBody(dh, 0, 10), 10, unix.EBADF},
		{"file's handle", opReaddir, rootID, readBody(fh, 0, 4096), 4096, unix.EBADF},
		{"more than there is room", opRead, file, readBody(fh, 0, 11), 10, unix.EINVAL},
		{"4 GiB", opRead, file, readBody(fh, 0, 1<<32-1), 10, unix.EINVAL},
		{"read at the end of numbers", opRead, file, readBody(fh, 1<<64-1, 10), 10, unix.EINVAL},
		{"write: size too large", opWrite, file, append(readBody(fh, 0, 5), "four"...), 8, unix.EINVAL},
		{"write: size too small", opWrite, file, append(readBody(fh, 0, 3), "four"...), 8, unix.EINVAL},
		{"write at the end of numbers", opWrite, file, append(readBody(fh, 1<<63-1, 4), "four"...), 8, unix.EINVAL},
		{"list in too little", opReaddir, rootID, readBody(dh, 0, 8), 8, unix.EINVAL},
		{"list more than there is room", opReaddir, rootID, readBody(dh, 0, 4096), 100, unix.EINVAL},
		{"size negative", opSetattr, file, cat(words32(attrSize, 0), words(0, 1<<63), make([]byte, 64)), attrOutLen, unix.EINVAL},
		{"truncate a directory", opSetattr, sub, cat(words32(attrSize, 0), make([]byte, 80)), attrOutLen, unix.EISDIR},
		{"nanoseconds beyond a second", opSetattr, file, cat(words32(attrAtime, 0), make([]byte, 48), words32(1e9), make([]byte, 28)), attrOutLen, unix.EINVAL},
		{"readlink of a file", opReadlink, file, nil, 100, unix.EINVAL},
		{"symlink without a target", opSymlink, rootID, append(name("l"), 0), entryOutLen, unix.EINVAL},
		{"symlink, target not terminated", opSymlink, rootID, append(name("l"), "abc"...), entryOutLen, unix.EINVAL},
		{"rename with one name", opRename, rootID, cat(words(rootID), name("file")), 0, unix.EINVAL},
		{"rename out", opRename, rootID, cat(words(rootID), name("file", "../stolen")), 0, unix.EINVAL},
		{"link out", opLink, rootID, cat(words(file), name("../hard")), entryOutLen, unix.EINVAL},
		{"link a directory", opLink, rootID, cat(words(sub), name("hard")), entryOutLen, unix.EPERM},
		{"unlink out", opUnlink, rootID, name("../canary"), 0, unix.EINVAL},
		{"rmdir dot dot", opRmdir, sub, name(".."), 0, unix.EINVAL},
		{"create out", opCreate, rootID, cat(words32(unix.O_WRONLY, 0o600, 0, 0), name("../new")), createOutLen, unix.EINVAL},
		{"fallocate: strange mode", opFallocate, file, cat(words(fh, 0, 10), words32(0x80, 0)), 0, unix.EOPNOTSUPP},
		{"fallocate: negative", opFallocate, file, cat(words(fh, 1<<63, 10), words32(0, 0)), 0, unix.EINVAL},
		{"seek: strange whence", opLseek, file, cat(words(fh, 0), words32(0, 0)), 8, unix.EINVAL},
		{"copy from no handle", opCopyFileRange, file, words(99, 0, file, fh, 0, 10, 0), 8, unix.EBADF},
		{"copy beyond numbers", opCopyFileRange, file, words(fh, far, file, fh, 1<<63, 1<<63, 0), 8, unix.EINVAL},
		{"xattr: size lies", opSetxattr, file, cat(words32(5, 0), name("user.x"), []byte("y")), 0, unix.EINVAL},
		{"xattr: no name", opGetxattr, file, cat(words32(0, 0), []byte{0, 0}), 8, unix.EINVAL},
		{"release twice", opRelease, file, words(98, 0, 0), 0, unix.EBADF},
		{"init of another protocol", opInit, 0, cat(words32(8, 0, 0, 0)), initOutLen, unix.EPROTO},
	} {
		if p, e := c.call(t, r.op, r.node, r.body, r.room); e != r.want {
			t.Errorf("%s: %v, want %v (%d bytes)", r.what, e, r.want, len(p))
		}
		if broken, err := c.d.Broken(); broken {
			t.Fatalf("%s broke the device: %v", r.what, err)
		}
	}
	// The length in the header.
	for _, n := range []uint32{0, 39, 44, 46, 1 << 31, 1<<32 - 1} {
		msg := message(opLookup, 5, rootID, name("file"))
		le.PutUint32(msg, n)
		if _, e := c.send(t, msg, entryOutLen); e != unix.EINVAL {
			t.Errorf("length %d: %v", n, e)
		}
	}
	// A handle is of no use once it is released.
	if _, e := c.call(t, opRelease, file, words(fh, 0, 0), 0); e != 0 {
		t.Fatal(e)
	}
	if _, e := c.call(t, opRead, file, readBody(fh, 0, 10), 10); e != unix.EBADF {
		t.Errorf("read after release: %v", e)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != "hello, world" {
		t.Errorf("the file is now %q, %v", b, err)
	}
	checkCanary(t, canary)
}

func checkCanary(tb testing.TB, canary string) {
	tb.Helper()
	b, err := os.ReadFile(canary)
	entries, derr := os.ReadDir(filepath.Dir(canary))
	if err != nil || derr != nil || string(b) != "canary" || len(entries) != 2 {
		tb.Errorf("outside: canary %q, %v; %v, %v", b, err, entries, derr)
	}
}

func TestBeforeInitAndAfterDestroy(t *testing.T) {
	dir, _ := tree(t)
	c := newClient(t, Options{Dir: dir})
	id := c.lookup(t, rootID, "file")
	if _, e := c.call(t, opDestroy, 0, nil, 0); e != 0 {
		t.Fatal(e)
	}
	if _, e := c.call(t, opGetattr, id, words(0, 0), attrOutLen); e != unix.EIO {
		t.Errorf("after DESTROY: %v", e)
	}
	c.start(t)
	c.lookup(t, rootID, "file")
}

// What breaks the rules of framing needs a reset (§2.1.2).
func TestMalformedFraming(t *testing.T) {
	dir, _ := tree(t)
	c := newClient(t, Options{Dir: dir})
	msg := message(opLookup, 1, rootID, name("file"))
	for _, m := range []struct {
		what string
		add  func(r *v.Ring)
		want error
	}{
		{"short header", func(r *v.Ring) { r.Add(c.d.Out(msg[:39]), c.d.In(200)) }, ErrRequest},
		{"no header", func(r *v.Ring) { r.Add(c.d.In(200)) }, ErrRequest},
		{"no reply", func(r *v.Ring) { r.Add(c.d.Out(msg)) }, ErrRequest},
		{"reply of 15", func(r *v.Ring) { r.Add(c.d.Out(msg), c.d.In(15)) }, ErrRequest},
		{"loop", func(r *v.Ring) {
			r.SetDesc(0, v.Desc{Addr: 0x1000, Len: 16, Flags: v.FlagNext, Next: 0})
			r.Publish(0)
		}, queue.ErrTooLong},
		{"reply outside memory", func(r *v.Ring) { r.Add(c.d.Out(msg), v.Buf{Addr: 3 << 30, Len: 512, Write: true}) }, nil},
	} {
		t.Run(m.what, func(t *testing.T) {
			for _, q := range []int{queueHiprio, queueRequest} {
				c.start(t)
				m.add(c.d.Ring(q))
				c.d.Kick(q)
				if broken, err := c.d.Broken(); !broken || m.want != nil && !errors.Is(err, m.want) {
					t.Errorf("queue %d: broken %v: %v, want %v", q, broken, err, m.want)
				}
			}
			c.start(t)
			c.lookup(t, rootID, "file")
		})
	}
}

// limitFiles bounds what this process may write to a file.
func limitFiles(tb testing.TB, bytes uint64) {
	tb.Helper()
	var old unix.Rlimit
	must(tb, unix.Getrlimit(unix.RLIMIT_FSIZE, &old))
	must(tb, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: old.Max}))
	tb.Cleanup(func() { must(tb, unix.Setrlimit(unix.RLIMIT_FSIZE, &old)) })
}

// A file as large as the host allows is an error, not the end of the process.
func TestFileSizeLimit(t *testing.T) {
	dir, _ := tree(t)
	c := newClient(t, Options{Dir: dir})
	limitFiles(t, 1<<20)
	file := c.lookup(t, rootID, "file")
	fh := c.open(t, opOpen, file, unix.O_RDWR)
	if _, e := c.call(t, opWrite, file, append(readBody(fh, 1<<20, 4), "four"...), 8); e != unix.EFBIG {
		t.Errorf("write beyond it: %v", e)
	}
	if _, e := c.call(t, opSetattr, file, cat(words32(attrSize, 0), words(0, 1<<40), make([]byte, 64)), attrOutLen); e != unix.EFBIG {
		t.Errorf("truncate beyond it: %v", e)
	}
	if _, e := c.call(t, opFallocate, file, cat(words(fh, 0, 1<<40), words32(0, 0)), 0); e != unix.EFBIG {
		t.Errorf("fallocate beyond it: %v", e)
	}
}

func openShare(tb testing.TB, dir string) *Device {
	tb.Helper()
	dev, err := New(Options{Dir: dir, Tag: "fuzz", MaxInodes: 64})
	must(tb, err)
	return dev
}

func FuzzDevice(f *testing.F) {
	dir, canary := tree(f)
	msg := message(opInit, 1, 0, initBody()[:16])
	f.Add(append(append([]byte{0, byte(len(msg))}, msg...), 0, 0, 64, 1, 1, 0, 0, 0, 64, 224, 0, 1, 1))
	v.Fuzz(f, func(tb testing.TB) virtio.Device { return openShare(tb, dir) },
		func(tb testing.TB, _ *v.Driver) { checkCanary(tb, canary) })
}

// FuzzRequests is a session of arbitrary requests: each is an opcode, a node, the
// room for its reply in units of 8 bytes, the length of its body, and its body.
func FuzzRequests(f *testing.F) {
	f.Setenv("TMPDIR", "/dev/shm") // fsync costs nothing there
	add := func(list ...[]byte) { f.Add(cat(list...)) }
	one := func(op, node, room byte, body []byte) []byte {
		return append([]byte{op, node, room, byte(len(body))}, body...)
	}
	add(one(opLookup, 1, 16, name("file")), one(opOpen, 2, 2, words32(2, 0)), one(opRead, 2, 20, readBody(1, 0, 100)),
		one(opWrite, 2, 1, append(readBody(1, 3, 4), "abcd"...)), one(opRelease, 2, 0, words(1, 0, 0)))
	add(one(opOpendir, 1, 2, words(0)), one(opReaddirplus, 1, 255, readBody(1, 0, 2040)), one(opReaddir, 1, 64, readBody(1, 0, 512)))
	add(one(opCreate, 1, 20, cat(words32(0x42, 0o600, 0, 0), name("new"))), one(opMkdir, 1, 16, cat(words32(0o700, 0), name("d"))),
		one(opSymlink, 1, 16, name("l", "../canary")), one(opLookup, 1, 16, name("link")), one(opReadlink, 3, 30, nil))
	add(one(opRename2, 1, 0, cat(words(1), words32(2, 0), name("file", "dir"))), one(opUnlink, 1, 0, name("fifo")),
		one(opSetattr, 1, 13, cat(words32(0x1ff, 0), make([]byte, 80))), one(opBatchForget, 0, 0, cat(words32(1, 0), words(2, 9))))
	add(one(opTmpfile, 1, 20, words32(unix.O_RDWR, 0o600, 0, 0)), one(opStatfs, 1, 10, nil), one(opLink, 1, 16, cat(words(2), name("h"))),
		one(opSetxattr, 2, 0, cat(words32(1, 0), name("user.a"), []byte("b"))), one(opListxattr, 2, 30, words32(100, 0)))
	f.Fuzz(func(t *testing.T, script []byte) {
		dir, canary := tree(t)
		limitFiles(t, 1<<20)
		s := openShare(t, dir).server
		defer func() { must(t, s.close()) }()
		out := make([]byte, replyLen+255*8)
		serve := func(op uint32, node uint64, body []byte, room int) {
			c := queue.Chain{Readable: [][]byte{message(op, 1, node, body)}, Writable: [][]byte{out[:replyLen+room]}}
			n, err := s.serve(&c)
			if err != nil || int(n) > replyLen+room {
				t.Fatalf("opcode %d: %d bytes for %d, %v", op, n, room, err)
			}
			if n > 0 && binary.LittleEndian.Uint32(out) != n {
				t.Fatalf("opcode %d: the reply says %d bytes, used are %d", op, binary.LittleEndian.Uint32(out), n)
			}
		}
		serve(opInit, 0, initBody(), initOutLen)
		for len(script) >= 4 {
			op, node, room, n := script[0], script[1], int(script[2])*8, min(int(script[3]), len(script)-4)
			serve(uint32(op), uint64(node), script[4:4+n], room)
			script = script[4+n:]
		}
		checkCanary(t, canary)
	})
}

// Reset while another goroutine kicks: afterwards the device leaves the rings
// alone.
func TestResetWhileBusy(t *testing.T) {
	dir, _ := tree(t)
	c := newClient(t, Options{Dir: dir})
	for range 30 {
		r := c.d.Ring(queueRequest)
		msg := message(opLookup, 1, rootID, name("file"))
		out, in := c.d.Out(msg), c.d.In(replyLen+entryOutLen)
		for range 100 {
			r.Add(out, in)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.d.Transport.Kick(queueRequest)
		}()
		c.d.SetReg(v.RegStatus, 0)
		at := r.UsedIndex()
		<-done
		if now := r.UsedIndex(); now != at {
			t.Fatalf("used index went from %d to %d after reset", at, now)
		}
		c.start(t)
	}
	c.lookup(t, rootID, "file")
}
