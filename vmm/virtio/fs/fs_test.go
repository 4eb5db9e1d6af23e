package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// tree makes a share's directory, with a canary beside it.
func tree(tb testing.TB) (dir, canary string) {
	tb.Helper()
	top := tb.TempDir()
	dir, canary = filepath.Join(top, "share"), filepath.Join(top, "canary")
	must(tb, os.MkdirAll(filepath.Join(dir, "dir"), 0o755))
	must(tb, os.WriteFile(canary, []byte("canary"), 0o600))
	must(tb, os.WriteFile(filepath.Join(dir, "file"), []byte("hello, world"), 0o644))
	must(tb, os.WriteFile(filepath.Join(dir, "dir", "inner"), []byte("inner"), 0o644))
	must(tb, os.Symlink(canary, filepath.Join(dir, "link")))
	must(tb, os.Symlink("..", filepath.Join(dir, "up")))
	must(tb, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o666))
	return dir, canary
}

func TestConfig(t *testing.T) {
	dir, _ := tree(t)
	dev, err := New(Options{Dir: dir, Tag: "a tag"})
	must(t, err)
	d := v.Attach(t, dev)
	p := make([]byte, 48)
	dev.ReadConfig(0, p)
	if tag := string(bytes.TrimRight(p[:36], "\x00")); tag != "a tag" || le.Uint32(p[36:]) != 1 || le.Uint64(p[40:]) != 0 {
		t.Errorf("configuration %q", p)
	}
	if id := d.Reg(v.RegDeviceID); id != 26 {
		t.Errorf("device id %d", id)
	}
}

func TestNewRefuses(t *testing.T) {
	dir, _ := tree(t)
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Dir: dir}, "tag of 0 bytes"},
		{Options{Dir: dir, Tag: strings.Repeat("x", 37)}, "tag of 37 bytes"},
		{Options{Dir: dir + "/none", Tag: "x"}, "no such file"},
		{Options{Dir: dir + "/fifo", Tag: "x"}, "neither a directory nor a regular file"},
		{Options{Dir: "", Tag: "x"}, "no such file"},
	} {
		before := descriptors(t)
		if d, err := New(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, %v", c.o, d, err)
		}
		if after := descriptors(t); after != before {
			t.Errorf("%+v: %d descriptors before, %d after", c.o, before, after)
		}
	}
}

// descriptors counts this process's open ones.
func descriptors(tb testing.TB) int {
	tb.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(tb, err)
	return len(entries)
}

func TestReadWriteInPieces(t *testing.T) {
	dir, _ := tree(t)
	c := newClient(t, Options{Dir: dir})
	fh := c.open(t, opOpen, c.lookup(t, rootID, "file"), unix.O_RDWR)
	// Header and data may be cut anywhere (§2.7.4).
	msg := message(opRead, 7, rootID, readBody(fh, 7, 100))
	parts := []v.Buf{c.d.In(5), c.d.In(15), c.d.In(2), c.d.In(94)}
	c.d.Ring(queueRequest).Add(append([]v.Buf{c.d.Out(msg[:3]), c.d.Out(msg[3:50]), c.d.Out(msg[50:])}, parts...)...)
	c.d.Kick(queueRequest)
	_, n := c.d.Ring(queueRequest).Wait()
	var got []byte
	for _, b := range parts {
		got = append(got, c.d.Bytes(b)...)
	}
	if string(got[replyLen:n]) != "world" || le.Uint32(got) != n {
		t.Errorf("read %q of %d bytes", got[replyLen:n], n)
	}
	reply, e := c.call(t, opWrite, rootID, append(readBody(fh, 7, 6), "guests"...), 8)
	if e != 0 || le.Uint32(reply) != 6 {
		t.Fatalf("write: %v, %x", e, reply)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != "hello, guests" {
		t.Errorf("the host sees %q, %v", b, err)
	}
	// O_APPEND goes to the end, wherever the guest thinks that is.
	body := cat(words(fh, 0), words32(1, 0), words(0), words32(unix.O_APPEND, 0), []byte("!"))
	if _, e := c.call(t, opWrite, rootID, body, 8); e != 0 {
		t.Fatal(e)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "file")); string(b) != "hello, guests!" {
		t.Errorf("after an append the host sees %q", b)
	}
}

// modifying are requests that change something, each of which would succeed.
func modifying(c *client, t *testing.T) map[string]func() unix.Errno {
	file, dir := c.lookup(t, rootID, "file"), c.lookup(t, rootID, "dir")
	call := func(op uint32, node uint64, body []byte, room uint32) func() unix.Errno {
		return func() unix.Errno { _, e := c.call(t, op, node, body, room); return e }
	}
	create := words32(unix.O_WRONLY, 0o600, 0, 0)
	return map[string]func() unix.Errno{
		"create":      call(opCreate, rootID, cat(create, name("new")), createOutLen),
		"mknod":       call(opMknod, rootID, cat(words32(unix.S_IFREG|0o600, 0, 0, 0), name("new2")), entryOutLen),
		"mkdir":       call(opMkdir, rootID, cat(words32(0o700, 0), name("newdir")), entryOutLen),
		"symlink":     call(opSymlink, rootID, name("newlink", "target"), entryOutLen),
		"link":        call(opLink, rootID, cat(words(file), name("hard")), entryOutLen),
		"chmod":       call(opSetattr, file, cat(words32(attrMode, 0), make([]byte, 60), words32(0o600), make([]byte, 16)), attrOutLen),
		"truncate":    call(opSetattr, file, cat(words32(attrSize, 0), make([]byte, 80)), attrOutLen),
		"open write":  call(opOpen, file, words32(unix.O_WRONLY, 0), openOutLen),
		"open trunc":  call(opOpen, file, words32(unix.O_RDONLY|unix.O_TRUNC, 0), openOutLen),
		"setxattr":    call(opSetxattr, file, cat(words32(1, 0), name("user.x"), []byte("y")), 0),
		"rename":      call(opRename, rootID, cat(words(dir), name("fifo", "fifo")), 0),
		"unlink":      call(opUnlink, dir, name("inner"), 0),
		"rmdir":       call(opRmdir, rootID, name("empty"), 0),
		"unlink link": call(opUnlink, rootID, name("link"), 0),
	}
}

func TestReadOnlyRefusesEveryChange(t *testing.T) {
	for _, ro := range []bool{false, true} {
		dir, _ := tree(t)
		must(t, os.Mkdir(filepath.Join(dir, "empty"), 0o755))
		c := newClient(t, Options{Dir: dir, ReadOnly: ro})
		for what, do := range modifying(c, t) {
			e := do()
			if ro && e != unix.EROFS {
				t.Errorf("%s of a read-only share: %v", what, e)
			}
			if !ro && e != 0 && !(what == "setxattr" && e == unix.EOPNOTSUPP) { // a tmpfs before 6.6
				t.Errorf("%s: %v", what, e)
			}
		}
		entries, err := os.ReadDir(dir)
		must(t, err)
		if want := 6; ro && len(entries) != want {
			t.Errorf("a read-only share has %v now", entries)
		}
	}
}

// What the guest can make the host keep is bounded.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	for i := range 40 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600))
	}
	c := newClient(t, Options{Dir: dir, MaxInodes: 10})
	before := descriptors(t)
	var ids []uint64
	for i := range 10 {
		ids = append(ids, c.lookup(t, rootID, fmt.Sprint(i)))
	}
	if _, e := c.call(t, opLookup, rootID, name("10"), entryOutLen); e != unix.ENFILE {
		t.Errorf("the eleventh inode: %v", e)
	}
	c.forget(t, ids[0], 1)
	c.forget(t, ids[0], 1)       // twice: it is gone
	c.forget(t, ids[1], 1<<63)   // more than it has
	c.forget(t, rootID, 1<<64-1) // the root stays
	c.forget(t, 1<<40, 1)        // never was
	if _, e := c.call(t, opGetattr, ids[0], words(0, 0), attrOutLen); e != unix.ESTALE {
		t.Errorf("a forgotten inode: %v", e)
	}
	id := c.lookup(t, rootID, "10")
	for i := range MaxHandles {
		if _, e := c.call(t, opOpen, id, words32(unix.O_RDONLY, 0), openOutLen); e != 0 {
			t.Fatalf("open %d: %v", i, e)
		}
	}
	if _, e := c.call(t, opOpen, id, words32(unix.O_RDONLY, 0), openOutLen); e != unix.EMFILE {
		t.Errorf("one handle too many: %v", e)
	}
	c.start(t) // a reset lets go of everything
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after a reset", before, after)
	}
	if _, e := c.call(t, opGetattr, id, words(0, 0), attrOutLen); e != unix.ESTALE {
		t.Errorf("an inode from before the reset: %v", e)
	}
}

// A listing in small pieces is the directory, whichever way it is asked for.
func TestListing(t *testing.T) {
	dir := t.TempDir()
	want := []string{".", ".."}
	for i := range 300 {
		n := fmt.Sprintf("%d%s", i, strings.Repeat("x", i%250))
		want = append(want, n)
		must(t, os.WriteFile(filepath.Join(dir, n), nil, 0o600))
	}
	slices.Sort(want)
	c := newClient(t, Options{Dir: dir})
	for _, op := range []uint32{opReaddir, opReaddirplus} {
		for _, size := range []uint32{512, 4096, 1 << 17} {
			fh := c.open(t, opOpendir, rootID, 0)
			var got []string
			for off := uint64(0); ; {
				p, e := c.call(t, op, rootID, readBody(fh, off, size), size)
				if e != 0 {
					t.Fatalf("opcode %d, %d bytes: %v", op, size, e)
				}
				if len(p) == 0 {
					break
				}
				for len(p) > 0 {
					if op == opReaddirplus {
						p = p[entryOutLen:]
					}
					n := int(le.Uint32(p[16:]))
					off = le.Uint64(p[8:])
					got = append(got, string(p[direntLen:direntLen+n]))
					p = p[(direntLen+n+7)&^7:]
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("opcode %d, %d bytes: %d names, want %d", op, size, len(got), len(want))
			}
		}
	}
}

// A shared file is all there is.
func TestOneFile(t *testing.T) {
	dir, canary := tree(t)
	c := newClient(t, Options{Dir: filepath.Join(dir, "file")})
	if c.dev.File() != FileName {
		t.Errorf("File is %q", c.dev.File())
	}
	fh := c.open(t, opOpen, c.lookup(t, rootID, FileName), unix.O_RDWR)
	if p, e := c.call(t, opRead, rootID, readBody(fh, 0, 64), 64); e != 0 || string(p) != "hello, world" {
		t.Errorf("read %q, %v", p, e)
	}
	for what, e := range map[string]unix.Errno{
		"lookup": second(c.call(t, opLookup, rootID, name("dir"), entryOutLen)),
		"create": second(c.call(t, opCreate, rootID, cat(words32(unix.O_WRONLY, 0o600, 0, 0), name("new")), createOutLen)),
		"unlink": second(c.call(t, opUnlink, rootID, name(FileName), 0)),
		"rename": second(c.call(t, opRename, rootID, cat(words(rootID), name(FileName, "x")), 0)),
		"mkdir":  second(c.call(t, opMkdir, rootID, cat(words32(0o700, 0), name("d")), entryOutLen)),
	} {
		if e != unix.ENOENT {
			t.Errorf("%s beside the file: %v", what, e)
		}
	}
	if b, err := os.ReadFile(canary); err != nil || string(b) != "canary" {
		t.Errorf("canary %q, %v", b, err)
	}
	mnt := mounted(t, Options{Dir: filepath.Join(dir, "file")})
	if b, err := os.ReadFile(filepath.Join(mnt, FileName)); err != nil || string(b) != "hello, world" {
		t.Errorf("the kernel reads %q, %v", b, err)
	}
	if err := os.WriteFile(filepath.Join(mnt, "other"), nil, 0o600); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a second file: %v", err)
	}
}

func second[T any](_ T, e unix.Errno) unix.Errno { return e }
