package erofs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	reader "github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/image/erofs"
)

func newImage(t testing.TB) (*os.File, *erofs.Writer) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	w := erofs.NewWriter(f)
	t.Cleanup(w.Close)
	return f, w
}

func newDir() *erofs.Node {
	return &erofs.Node{Mode: unix.S_IFDIR | 0o755, Children: map[string]*erofs.Node{}}
}

func add(t testing.TB, w *erofs.Writer, content []byte) *erofs.Node {
	t.Helper()
	data, err := w.Add(context.Background(), bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	return &erofs.Node{Mode: unix.S_IFREG | 0o644, Data: data}
}

// Directories of every size around a block's, which decides where their last
// entries go, read by a reader that is not ours.
func TestDirectorySizes(t *testing.T) {
	for count := 330; count < 350; count++ { // 12 bytes each and names of no bytes fill 341
		for _, nameLen := range []int{4, 100, 255} {
			f, w := newImage(t)
			root := newDir()
			file := add(t, w, []byte("content"))
			for i := range count {
				root.Children[fmt.Sprintf("%0*d", nameLen, i)] = file
			}
			if _, err := w.Finish(root, "test"); err != nil {
				t.Fatal(err)
			}
			fsys, err := reader.Open(f)
			if err != nil {
				t.Fatal(err)
			}
			entries, err := fs.ReadDir(fsys, ".")
			if err != nil || len(entries) != count {
				t.Fatalf("%d names of %d bytes: read %d, %v", count, nameLen, len(entries), err)
			}
			last := fmt.Sprintf("%0*d", nameLen, count-1)
			if content, err := fs.ReadFile(fsys, last); err != nil || string(content) != "content" {
				t.Fatalf("%d names of %d bytes: the last holds %q, %v", count, nameLen, content, err)
			}
		}
	}
}

// Equal input gives equal images, and what was discarded costs nothing.
func TestDeterministicAndSparse(t *testing.T) {
	var images [2][]byte
	for i := range images {
		f, w := newImage(t)
		gone := add(t, w, bytes.Repeat([]byte("gone"), 1<<20))
		root := newDir()
		for j := range 100 {
			root.Children[fmt.Sprint("f", j)] = add(t, w, []byte(fmt.Sprint(j)))
		}
		root.Children["zeros"] = add(t, w, make([]byte, 8<<20))
		w.Discard(gone.Data)
		stats, err := w.Finish(root, "test")
		if err != nil || stats.Inodes != 102 {
			t.Fatalf("%+v, %v", stats, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		if used := st.Blocks * 512; used > 1<<20 || st.Size < 12<<20 {
			t.Errorf("%d bytes take %d on disk", st.Size, used)
		}
		if images[i], err = os.ReadFile(f.Name()); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("two images of one tree differ")
	}
}

// Trees that no image can hold are refused, and readers' errors passed on.
func TestWriterRefuses(t *testing.T) {
	shared := newDir()
	cycle := newDir()
	cycle.Children["up"] = cycle
	with := func(name string, n *erofs.Node) *erofs.Node {
		d := newDir()
		d.Children[name] = n
		return d
	}
	twice := with("a", shared)
	twice.Children["b"] = shared
	for name, root := range map[string]*erofs.Node{
		"nil":           nil,
		"file as root":  {Mode: unix.S_IFREG},
		"no type":       with("x", &erofs.Node{Mode: 0o644}),
		"mode bits":     with("x", &erofs.Node{Mode: unix.S_IFREG | 1<<20}),
		"nanoseconds":   with("x", &erofs.Node{Mode: unix.S_IFREG, Nsec: 1e9}),
		"empty link":    with("x", &erofs.Node{Mode: unix.S_IFLNK}),
		"long link":     with("x", &erofs.Node{Mode: unix.S_IFLNK, Target: strings.Repeat("x", 4096)}),
		"device":        with("x", &erofs.Node{Mode: unix.S_IFCHR, Major: 1 << 12}),
		"xattr name":    with("x", &erofs.Node{Mode: unix.S_IFREG, Xattrs: map[string]string{"system.other": ""}}),
		"xattr value":   with("x", &erofs.Node{Mode: unix.S_IFREG, Xattrs: map[string]string{"user.x": strings.Repeat("v", 1<<16)}}),
		"empty name":    with("", shared),
		"dot":           with(".", shared),
		"slash":         with("a/b", shared),
		"NUL":           with("a\x00b", shared),
		"long name":     with(strings.Repeat("n", 256), shared),
		"shared dir":    twice,
		"dir in itself": cycle,
	} {
		_, w := newImage(t)
		if _, err := w.Finish(root, "test"); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	_, w := newImage(t)
	if _, err := w.Add(t.Context(), strings.NewReader("12345"), 4); !errors.Is(err, erofs.ErrTooBig) {
		t.Errorf("5 bytes where 4 may be: %v", err)
	}
	truncated := iotest.DataErrReader(io.MultiReader(strings.NewReader("123"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if _, err := w.Add(t.Context(), truncated, 100); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that breaks off: %v", err)
	}
}

// Files that change while they are packed are noticed, and so is any change
// between two scans.
func TestScanNoticesChange(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	if err := os.WriteFile(name, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	scan := func() *erofs.Scan {
		t.Helper()
		s, err := erofs.ScanFiles(t.Context(), erofs.Source{Path: dir, At: "/"})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := scan()
	if again := scan(); again.Fingerprint() != first.Fingerprint() {
		t.Error("fingerprint of an unchanged directory changed")
	}
	for _, content := range []string{"three", ""} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if changed := scan(); changed.Fingerprint() == first.Fingerprint() {
			t.Errorf("fingerprint ignores content %q", content)
		}
		f, _ := newImage(t)
		if _, err := first.Write(t.Context(), f); !errors.Is(err, erofs.ErrChanged) {
			t.Errorf("packed what is now %q: %v", content, err)
		}
	}
	last := scan()
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if scan().Fingerprint() == last.Fingerprint() {
		t.Error("fingerprint ignores the mode")
	}
}

// Sources land where they were asked for, with the host's directories above.
func TestPackSources(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "sub/deep"), 0o711); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "sub/deep/file")
	if err := os.WriteFile(name, []byte("content"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(packInto(t, erofs.Source{Path: name, At: name}, erofs.Source{Path: filepath.Join(dir, "sub"), At: "/elsewhere/sub"}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	fsys, err := reader.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]fs.FileMode{
		name[1:]: 0o755, filepath.Dir(name)[1:]: fs.ModeDir | 0o711,
		"elsewhere": fs.ModeDir | 0o755, "elsewhere/sub/deep": fs.ModeDir | 0o711, "elsewhere/sub/deep/file": 0o755,
	} {
		info, err := fs.Stat(fsys, path)
		if err != nil || info.Mode().Perm() != mode.Perm() || info.IsDir() != mode.IsDir() {
			t.Errorf("%s: %v, %v, want %v", path, info, err, mode)
		}
	}
	for _, bad := range []erofs.Source{
		{Path: name, At: "relative"}, {Path: name, At: "/"}, {Path: dir + "/none", At: "/x"},
	} {
		f, _ := newImage(t)
		if _, err := erofs.Pack(t.Context(), f, bad); err == nil {
			t.Errorf("%+v: accepted", bad)
		}
	}
}

// The holes of a file are neither read nor stored, wherever they are.
func TestPackSparse(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	const size = 1<<40 + 5
	parts := map[int64]string{0: "start", 5000: "odd", 3<<20 - 2: "across", 1 << 39: "middle", size - 3: "end"}
	for at, content := range parts {
		if _, err := f.WriteAt([]byte(content), at); err != nil {
			t.Fatal(err)
		}
	}
	image, err := os.Open(packInto(t, erofs.Source{Path: dir, At: "/"}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = image.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("image takes %d bytes on disk, %v", st.Blocks*512, err)
	}
	root, err := erofs.Load(image)
	if err != nil {
		t.Fatal(err)
	}
	content := root.Children["sparse"].Open(image)
	if content.Size() != size {
		t.Errorf("file of %d bytes", content.Size())
	}
	for at, want := range parts {
		window := make([]byte, len(want)+2) // with a zero on either side
		from := max(0, at-1)
		window = window[:min(int64(len(window)), size-from)]
		if _, err := content.ReadAt(window, from); err != nil {
			t.Fatal(err)
		}
		if got := strings.Trim(string(window), "\x00"); got != want {
			t.Errorf("at %d: %q, want %q", at, got, want)
		}
	}
}

// The kernel's own file systems are left out.
func TestPackSkipsProc(t *testing.T) {
	f, err := os.Open(packInto(t, erofs.Source{Path: "/proc", At: "/proc"}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	root, err := erofs.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	if n := root.Children["proc"]; n == nil || len(n.Children) != 0 {
		t.Errorf("/proc is %+v", n)
	}
}

// Load ends with an error or a tree, whatever it reads.
func FuzzLoad(f *testing.F) {
	out, w := newImage(f)
	root := newDir()
	root.Children["file"] = add(f, w, []byte("content"))
	root.Children["hard"] = root.Children["file"]
	root.Children["link"] = &erofs.Node{Mode: unix.S_IFLNK, Target: "file", Xattrs: map[string]string{"user.x": "y"}}
	root.Children["dir"] = newDir()
	if _, err := w.Finish(root, "fuzz"); err != nil {
		f.Fatal(err)
	}
	image, err := os.ReadFile(out.Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image)
	f.Fuzz(func(t *testing.T, image []byte) {
		r := bytes.NewReader(image)
		tree, err := erofs.Load(r)
		if err != nil {
			return
		}
		for name, n := range tree.Children {
			if _, err := io.Copy(io.Discard, n.Open(r)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		f, w := newImage(b)
		if _, err := w.Add(context.Background(), bytes.NewReader(content), int64(len(content))); err != nil {
			b.Fatal(err)
		}
		_ = os.Remove(f.Name())
	}
}

func BenchmarkFinish(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		f, w := newImage(b)
		root := newDir()
		for i := range 100 {
			d := newDir()
			for j := range 100 {
				d.Children[fmt.Sprint("file", j)] = &erofs.Node{Mode: unix.S_IFREG | 0o644}
			}
			root.Children[fmt.Sprint("dir", i)] = d
		}
		b.StartTimer()
		if _, err := w.Finish(root, "bench"); err != nil {
			b.Fatal(err)
		}
		_ = os.Remove(f.Name())
	}
}
