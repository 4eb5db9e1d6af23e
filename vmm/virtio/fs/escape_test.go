package fs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever happens on the host, a name leads nowhere but into the shared tree.
func TestSymlinkRace(t *testing.T) {
	dir, canary := tree(t)
	outside := filepath.Dir(canary)
	must(t, os.Mkdir(filepath.Join(dir, "real"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "real", "canary"), []byte("inside"), 0o600))
	must(t, os.Symlink(outside, filepath.Join(dir, "evil")))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // exchanges the directory and the link that leads out
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "real"), unix.AT_FDCWD, filepath.Join(dir, "evil"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	c := newClient(t, Options{Dir: dir})
	found := 0
	for range 2000 {
		reply, e := c.call(t, opLookup, rootID, name("real"), entryOutLen)
		if e != 0 {
			t.Fatalf("lookup real: %v", e)
		}
		id := le.Uint64(reply)
		reply, e = c.call(t, opLookup, id, name("canary"), entryOutLen)
		switch e {
		case unix.ENOTDIR: // the link: the guest's to follow
		case 0:
			found++
			fh := c.open(t, opOpen, le.Uint64(reply), unix.O_RDONLY)
			data, e := c.call(t, opRead, rootID, readBody(fh, 0, 64), 64)
			if e != 0 || string(data) != "inside" {
				t.Fatalf("read %q, %v", data, e)
			}
			_, _ = c.call(t, opRelease, rootID, words(fh, 0, 0), 0)
		default:
			t.Fatalf("lookup canary: %v", e)
		}
		// Nor can something be made or removed out there.
		if _, e := c.call(t, opCreate, id, cat(words32(unix.O_WRONLY, 0o600, 0, 0), name("new")), createOutLen); e != 0 && e != unix.ENOTDIR {
			t.Fatalf("create: %v", e)
		}
		c.forget(t, id, 2)
	}
	close(stop)
	<-done
	if found == 0 {
		t.Error("the directory was never found")
	}
	entries, err := os.ReadDir(outside)
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("outside there is %v now", entries)
	}
}

// Only files and directories are opened, and no device node is made.
func TestSpecialFiles(t *testing.T) {
	dir, _ := tree(t)
	c := newClient(t, Options{Dir: dir})
	for file, want := range map[string]unix.Errno{"fifo": unix.ENXIO, "link": unix.ELOOP, "dir": unix.EISDIR} {
		if _, e := c.call(t, opOpen, c.lookup(t, rootID, file), words32(unix.O_RDONLY, 0), openOutLen); e != want {
			t.Errorf("open %s: %v, want %v", file, e, want)
		}
	}
	// O_CREAT finds the FIFO, and does not wait for a reader.
	if _, e := c.call(t, opCreate, rootID, cat(words32(unix.O_WRONLY, 0o600, 0, 0), name("fifo")), createOutLen); e != unix.ENXIO {
		t.Errorf("create over a FIFO: %v", e)
	}
	for _, kind := range []uint32{unix.S_IFCHR, unix.S_IFBLK, unix.S_IFLNK, unix.S_IFDIR, 0xf000} {
		if _, e := c.call(t, opMknod, rootID, cat(words32(kind|0o666, 0x103, 0, 0), name("node")), entryOutLen); e != unix.EPERM {
			t.Errorf("mknod %#o: %v, want EPERM", kind, e)
		}
	}
	if _, e := c.call(t, opRename2, rootID, cat(words(rootID), words32(unix.RENAME_WHITEOUT, 0), name("file", "moved")), 0); e != unix.EINVAL {
		t.Errorf("rename with a whiteout: %v", e)
	}
	for _, attr := range []string{"security.capability", "trusted.overlay.opaque", "system.posix_acl_access"} {
		id := c.lookup(t, rootID, "file")
		if _, e := c.call(t, opSetxattr, id, cat(words32(1, 0), name(attr), []byte("x")), 0); e != unix.EOPNOTSUPP {
			t.Errorf("set %s: %v", attr, e)
		}
	}
}

// What works on an inode works on a symbolic link itself, never on what it leads to.
func TestLinksAreNotFollowed(t *testing.T) {
	dir, canary := tree(t)
	c := newClient(t, Options{Dir: dir})
	id := c.lookup(t, rootID, "link")
	var before, after unix.Stat_t
	must(t, unix.Stat(canary, &before))
	setattr := func(valid, mode, uid uint32) []byte {
		return cat(words32(valid, 0), make([]byte, 60), words32(mode, 0, uid, uid, 0))
	}
	if _, e := c.call(t, opLink, rootID, cat(words(id), name("hard")), entryOutLen); e != 0 {
		t.Errorf("link: %v", e)
	}
	if target, err := os.Readlink(filepath.Join(dir, "hard")); err != nil || target != canary {
		t.Errorf("the hard link is %q, %v", target, err)
	}
	if _, e := c.call(t, opSetattr, id, setattr(attrMode, 0o777, 0), attrOutLen); e != unix.EOPNOTSUPP {
		t.Errorf("chmod: %v", e)
	}
	if _, e := c.call(t, opSetattr, id, setattr(attrSize, 0, 0), attrOutLen); e != unix.ELOOP {
		t.Errorf("truncate: %v", e)
	}
	if _, e := c.call(t, opSetattr, id, setattr(attrMtime|attrAtime, 0, 0), attrOutLen); e != 0 {
		t.Errorf("set times: %v", e)
	}
	if _, e := c.call(t, opSetattr, id, setattr(attrUID|attrGID, 0, uint32(os.Geteuid())), attrOutLen); e != 0 {
		t.Errorf("chown: %v", e)
	}
	if _, e := c.call(t, opListxattr, id, words32(100, 0), 100); e != unix.EOPNOTSUPP {
		t.Errorf("list attributes: %v", e)
	}
	must(t, unix.Stat(canary, &after))
	before.Atim = after.Atim
	if before != after {
		t.Errorf("what it leads to was\n%+v and is\n%+v", before, after)
	}
}
