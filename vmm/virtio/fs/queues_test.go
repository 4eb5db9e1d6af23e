package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/memory"
)

// Both queues are served at once, each by its own goroutine, and their requests
// one at a time: what FORGETs on one queue take away and LOOKUPs on the other
// give stays in balance.
func TestQueuesAtOnce(t *testing.T) {
	dir := t.TempDir()
	const files, rounds = 16, 200
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := newClient(t, Options{Dir: dir})
	ids := make([]uint64, files)
	for i := range ids {
		ids[i] = c.lookup(t, 1, fmt.Sprint(i))
	}
	lookups, forgets, in := c.d.In(files*64), c.d.In(files*64), c.d.In(files*256)
	lookups.Write, forgets.Write = false, false
	for range rounds {
		for i := range files {
			l, f, r := lookups, forgets, in
			msg := message(opLookup, uint64(i), 1, name(fmt.Sprint(i)))
			l.Addr, l.Len = lookups.Addr+64*memory.GPA(i), uint32(len(msg))
			c.d.Put(l.Addr, msg)
			r.Addr, r.Len = in.Addr+256*memory.GPA(i), 256
			c.d.Ring(queueRequest).Add(l, r)
			msg = message(opForget, uint64(i), ids[i], words(1))
			f.Addr, f.Len = forgets.Addr+64*memory.GPA(i), uint32(len(msg))
			c.d.Put(f.Addr, msg)
			c.d.Ring(queueHiprio).Add(f)
		}
		var kicks sync.WaitGroup
		for q := range 2 {
			kicks.Go(func() { c.d.Transport.Kick(q) })
		}
		kicks.Wait()
		for i := range files {
			c.d.Ring(queueHiprio).Wait()
			c.d.Ring(queueRequest).Wait()
			reply := c.d.Bytes(in)[256*i:]
			if e := unix.Errno(-int32(le.Uint32(reply[4:]))); e != 0 {
				t.Fatalf("lookup: %v", e)
			}
			ids[i] = le.Uint64(reply[replyLen:])
		}
	}
	if broken, err := c.d.Broken(); broken {
		t.Error(err)
	}
	if n := len(c.dev.server.inodes.byFile); n > files+1 { // and the root
		t.Errorf("%d inodes are known of %d files", n, files)
	}
}
