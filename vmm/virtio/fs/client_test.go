package fs

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// client is a FUSE client on top of the mock driver.
type client struct {
	d       *v.Driver
	dev     *Device
	unique  uint64
	out, in v.Buf // of the request under way
}

// Room for requests and replies.
const (
	maxOut = 128 << 10
	maxIn  = MaxIO + replyLen
)

func newClient(tb testing.TB, o Options) *client {
	tb.Helper()
	o.Tag = "tag"
	dev, err := New(o)
	if err != nil {
		tb.Fatal(err)
	}
	c := &client{d: v.Start(tb, dev), dev: dev}
	c.start(tb)
	return c
}

// start brings the driver up, from whatever state, and begins a session.
func (c *client) start(tb testing.TB) {
	tb.Helper()
	c.d.Init()
	c.out, c.in = c.d.In(maxOut), c.d.In(maxIn)
	c.out.Write = false
	reply, e := c.call(tb, opInit, 0, initBody(), initOutLen)
	if e != 0 || le.Uint32(reply) != protoMajor {
		tb.Fatalf("init: %v, %x", e, reply)
	}
}

func initBody() []byte {
	return append(words32(protoMajor, protoMinor, 128<<10, 0xffffffff), make([]byte, 48)...)
}

// words makes the body of a request.
func words(list ...uint64) []byte {
	var p []byte
	for _, w := range list {
		p = le.AppendUint64(p, w)
	}
	return p
}

func words32(list ...uint32) []byte {
	var p []byte
	for _, w := range list {
		p = le.AppendUint32(p, w)
	}
	return p
}

// name makes NUL-terminated names.
func name(list ...string) []byte {
	var p []byte
	for _, s := range list {
		p = append(append(p, s...), 0)
	}
	return p
}

func cat(list ...[]byte) []byte { return bytes.Join(list, nil) }

// message is a whole request.
func message(op uint32, unique, node uint64, body []byte) []byte {
	p := words32(uint32(headerLen+len(body)), op)
	p = append(p, words(unique, node)...)
	p = append(p, words32(0, 0, 1, 0)...) // uid, gid, pid, padding
	return append(p, body...)
}

// call makes a request with room bytes for the reply's body, and returns that.
func (c *client) call(tb testing.TB, op uint32, node uint64, body []byte, room uint32) ([]byte, unix.Errno) {
	tb.Helper()
	c.unique++
	return c.send(tb, message(op, c.unique, node, body), room)
}

func (c *client) send(tb testing.TB, msg []byte, room uint32) ([]byte, unix.Errno) {
	tb.Helper()
	out, in := c.out, c.in
	out.Len, in.Len = uint32(len(msg)), replyLen+room
	c.d.Put(out.Addr, msg)
	c.d.Ring(queueRequest).Add(out, in)
	c.d.Kick(queueRequest)
	_, n := c.d.Ring(queueRequest).Wait()
	p := c.d.Bytes(in)
	if n < replyLen || n > in.Len || le.Uint32(p) != n || le.Uint64(p[8:]) != le.Uint64(msg[8:]) {
		tb.Fatalf("opcode %d: reply of %d bytes: %x", le.Uint32(msg[4:]), n, p[:min(len(p), 64)])
	}
	return p[replyLen:n], unix.Errno(-int32(le.Uint32(p[4:])))
}

// lookup returns the node id of a name.
func (c *client) lookup(tb testing.TB, dir uint64, file string) uint64 {
	tb.Helper()
	reply, e := c.call(tb, opLookup, dir, name(file), entryOutLen)
	if e != 0 {
		tb.Fatalf("lookup %s: %v", file, e)
	}
	return le.Uint64(reply)
}

// open returns a handle of a node.
func (c *client) open(tb testing.TB, op uint32, node uint64, flags uint32) uint64 {
	tb.Helper()
	reply, e := c.call(tb, op, node, words32(flags, 0), openOutLen)
	if e != 0 {
		tb.Fatalf("open: %v", e)
	}
	return le.Uint64(reply)
}

// readBody is that of FUSE_READ, FUSE_READDIR and, without the data, FUSE_WRITE.
func readBody(fh, off uint64, size uint32) []byte {
	return cat(words(fh, off), words32(size, 0), words(0, 0))
}

// forget sends FUSE_FORGET on the high-priority queue, as Linux does.
func (c *client) forget(tb testing.TB, id, count uint64) {
	tb.Helper()
	out := c.out
	msg := message(opForget, 0, id, words(count))
	out.Len = uint32(len(msg))
	c.d.Put(out.Addr, msg)
	c.d.Ring(queueHiprio).Add(out)
	c.d.Kick(queueHiprio)
	if _, n := c.d.Ring(queueHiprio).Wait(); n != 0 {
		tb.Fatalf("forget used %d bytes", n)
	}
}
