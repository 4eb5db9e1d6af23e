package memory

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Memory goes to a sparse file and comes back, above the hole too; what a Map
// writes stays its own, and what it discards reads as the file.
func TestWriteToAndMap(t *testing.T) {
	const high = 1 << 20
	size := uint64(HoleStart) + high
	m, err := New(size)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	marks := map[GPA]string{
		0: "first", 4096 * 300: "in the middle", chunk - 3: "across chunks", HoleStart - 5: "last!",
		HoleEnd: "high", HoleEnd + high - 4: "end.",
	}
	for at, text := range marks {
		if err := m.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := m.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || uint64(st.Size) != size || st.Blocks*512 > 1<<20 {
		t.Fatalf("%d bytes of %d, %d on the disk, %v", st.Size, size, st.Blocks*512, err)
	}
	r, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	first, err := Map(r, size)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	has := func(at GPA, want string) {
		t.Helper()
		got := make([]byte, len(want))
		if err := first.ReadAt(got, at); err != nil || string(got) != want {
			t.Errorf("at %#x: %q, %v; want %q", uint64(at), got, err, want)
		}
	}
	for at, text := range marks {
		has(at, text)
		if err := first.WriteAt(bytes.ToUpper([]byte(text)), at); err != nil {
			t.Fatal(err)
		}
	}
	has(0, "FIRST")
	if err := first.Discard(0, pageSize); err != nil {
		t.Fatal(err)
	}
	has(0, "first")
	has(HoleEnd, "HIGH")
	var raw [5]byte
	if _, err := f.ReadAt(raw[:], int64(HoleStart)-5); err != nil || string(raw[:]) != "last!" {
		t.Errorf("the file has %q, %v", raw, err)
	}
	for _, n := range []uint64{size - pageSize, size + pageSize, 0} {
		if m, err := Map(f, n); err == nil {
			t.Errorf("%d bytes of a file of %d: %v", n, size, m)
		}
	}
}
