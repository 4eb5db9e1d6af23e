package fs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// benchServer is a server in session, and a chain with a request that was served
// once.
func benchRequest(b *testing.B, op uint32, room int, body func(call func(op uint32, node uint64, body []byte, room int) []byte) (uint64, []byte)) {
	b.Helper()
	dir := b.TempDir()
	must(b, os.WriteFile(filepath.Join(dir, "file"), make([]byte, 4<<20), 0o600))
	dev, err := New(Options{Dir: dir, Tag: "bench"})
	must(b, err)
	defer func() { must(b, dev.Close()) }()
	call := func(op uint32, node uint64, body []byte, room int) []byte {
		out := make([]byte, replyLen+room)
		c := queue.Chain{Readable: [][]byte{message(op, 1, node, body)}, Writable: [][]byte{out}}
		if _, err := dev.server.serve(&c); err != nil || le.Uint32(out[4:]) != 0 {
			b.Fatalf("opcode %d: %v, %x", op, err, out[:8])
		}
		return out[replyLen:]
	}
	call(opInit, 0, initBody(), initOutLen)
	node, req := body(call)
	out := make([]byte, replyLen+room)
	c := queue.Chain{Readable: [][]byte{message(op, 1, node, req)}, Writable: [][]byte{out[:replyLen]}}
	for at := replyLen; at < len(out); at += 4096 { // pages, as a guest has them
		c.Writable = append(c.Writable, out[at:min(at+4096, len(out))])
	}
	if op == opRead {
		b.SetBytes(int64(room))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := dev.server.serve(&c); err != nil {
			b.Fatal(err)
		}
	}
	if e := le.Uint32(out[4:]); e != 0 {
		b.Fatalf("reply %x", out[:replyLen])
	}
}

type caller = func(op uint32, node uint64, body []byte, room int) []byte

func benchRead(b *testing.B, size int) {
	benchRequest(b, opRead, size, func(call caller) (uint64, []byte) {
		id := le.Uint64(call(opLookup, rootID, name("file"), entryOutLen))
		fh := le.Uint64(call(opOpen, id, words32(unix.O_RDONLY, 0), openOutLen))
		return id, readBody(fh, 0, uint32(size))
	})
}

func BenchmarkRead4K(b *testing.B) { benchRead(b, 4<<10) }

func BenchmarkRead1M(b *testing.B) { benchRead(b, 1<<20) }

func BenchmarkWrite4K(b *testing.B) {
	b.SetBytes(4 << 10)
	benchRequest(b, opWrite, 8, func(call caller) (uint64, []byte) {
		id := le.Uint64(call(opLookup, rootID, name("file"), entryOutLen))
		fh := le.Uint64(call(opOpen, id, words32(unix.O_RDWR, 0), openOutLen))
		return id, append(readBody(fh, 0, 4<<10), make([]byte, 4<<10)...)
	})
}

func BenchmarkGetattr(b *testing.B) {
	benchRequest(b, opGetattr, attrOutLen, func(call caller) (uint64, []byte) {
		return le.Uint64(call(opLookup, rootID, name("file"), entryOutLen)), words(0, 0)
	})
}

func BenchmarkLookup(b *testing.B) {
	benchRequest(b, opLookup, entryOutLen, func(call caller) (uint64, []byte) {
		call(opLookup, rootID, name("file"), entryOutLen)
		return rootID, name("file")
	})
}
