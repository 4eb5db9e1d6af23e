package iovec_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/iovec"
)

func file(tb testing.TB, content string) int {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func TestReadAndWrite(t *testing.T) {
	fd := file(t, "0123456789")
	for _, c := range []struct {
		off, n int
		want   [3]string // of buffers that hold "aaa", "bb", "cccc"
	}{
		{0, 9, [3]string{"012", "34", "5678"}},
		{0, 2, [3]string{"01a", "bb", "cccc"}},
		{3, 2, [3]string{"aaa", "01", "cccc"}},
		{4, 3, [3]string{"aaa", "b0", "12cc"}},
		{8, 1, [3]string{"aaa", "bb", "ccc0"}},
		{9, 5, [3]string{"aaa", "bb", "cccc"}},
		{0, 0, [3]string{"aaa", "bb", "cccc"}},
	} {
		bufs := [][]byte{[]byte("aaa"), []byte("bb"), []byte("cccc")}
		var l iovec.List
		held := l.Set(bufs, c.off, c.n)
		got, err := l.ReadAt(fd, 0, 0)
		if err != nil || got != held || held != min(c.n, max(0, 9-c.off)) {
			t.Errorf("off %d, n %d: holds %d, read %d, %v", c.off, c.n, held, got, err)
		}
		for i, b := range bufs {
			if string(b) != c.want[i] {
				t.Errorf("off %d, n %d: buffer %d has %q, want %q", c.off, c.n, i, b, c.want[i])
			}
		}
	}
	var l iovec.List
	l.Set([][]byte{[]byte("ab"), []byte("cde")}, 1, 3)
	for _, flags := range []int{0, unix.RWF_DSYNC} {
		if n, err := l.WriteAt(fd, 5, flags); n != 3 || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
	}
	p := make([]byte, 16)
	if n, err := unix.Pread(fd, p, 0); err != nil || string(p[:n]) != "01234bcd89" {
		t.Errorf("file holds %q, %v", p[:n], err)
	}
	if _, err := l.ReadAt(-1, 0, 0); err != unix.EBADF {
		t.Errorf("read of no file: %v", err)
	}
}

// More pieces than one call takes: Set says how far it came.
func TestManyPieces(t *testing.T) {
	bufs := make([][]byte, iovec.Max+5)
	for i := range bufs {
		bufs[i] = []byte{'x'}
	}
	var l iovec.List
	if n := l.Set(bufs, 0, len(bufs)); n != iovec.Max {
		t.Errorf("holds %d bytes, want %d", n, iovec.Max)
	}
	fd := file(t, "")
	if n, err := l.WriteAt(fd, 0, 0); n != iovec.Max || err != nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	in := make([]byte, iovec.Max)
	l.Set([][]byte{in[:100], in[100:]}, 0, len(in))
	if n, err := l.ReadAt(fd, 0, 0); n != iovec.Max || err != nil || !bytes.Equal(in, bytes.Repeat([]byte{'x'}, iovec.Max)) {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestAligned(t *testing.T) {
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(page) }()
	for _, c := range []struct {
		from, to int
		want     bool
	}{{0, 4096, true}, {512, 1024, true}, {4, 516, false}, {0, 511, false}, {512, 513, false}} {
		var l iovec.List
		l.Set([][]byte{page[c.from:c.to]}, 0, 4096)
		if got := l.Aligned(512, 512); got != c.want {
			t.Errorf("%d to %d: %v", c.from, c.to, got)
		}
	}
}

func BenchmarkReadAt(b *testing.B) {
	fd := file(b, "0123456789")
	bufs := make([][]byte, 32)
	for i := range bufs {
		bufs[i] = make([]byte, 1)
	}
	var l iovec.List
	b.ReportAllocs()
	for b.Loop() {
		l.Set(bufs, 0, 32)
		if _, err := l.ReadAt(fd, 0, 0); err != nil {
			b.Fatal(err)
		}
	}
}
