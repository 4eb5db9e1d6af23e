package erofs_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/duplex-run/duplex/image/erofs"
	"github.com/duplex-run/duplex/internal/testutil/listing"
	"golang.org/x/sys/unix"
)

// makeTree fills dir with one of everything EROFS has to hold.
func makeTree(t *testing.T, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	file := func(name string, content []byte, mode os.FileMode) {
		must(os.WriteFile(at(name), content, 0o600))
		must(os.Chmod(at(name), mode))
	}
	for _, size := range []int{0, 1, 1983, 1984, 1985, 4095, 4096, 4097, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5<<20 + 123} {
		content := bytes.Repeat([]byte("0123456789abcdef!"), size/17+1)[:size]
		file(fmt.Sprintf("file-%d", size), content, 0o644)
	}
	file("zeros", make([]byte, 3<<20), 0o644)
	sparse, err := os.Create(at("sparse"))
	must(err)
	_, err = sparse.WriteAt([]byte("middle"), 70<<20+5)
	must(err)
	must(sparse.Truncate(100<<20 + 1))
	must(sparse.Close())
	file("setuid", []byte("x"), 0o755|os.ModeSetuid)
	file("setgid", []byte("x"), 0o755|os.ModeSetgid)
	must(os.Mkdir(at("tmp"), 0o755))
	must(os.Chmod(at("tmp"), 0o777|os.ModeSticky))
	file("owned", []byte("x"), 0o000)
	must(os.Chown(at("owned"), 3_000_000_000, 70000))
	file("-dash", []byte("sorts before dot"), 0o644)
	file("!bang", nil, 0o644)
	file("name with\nnewline \xff\xfe", nil, 0o644)
	file(strings.Repeat("n", 255), nil, 0o644)
	must(os.Symlink("file-1", at("link-short")))
	must(os.Symlink("/"+strings.Repeat("t/", 2000), at("link-4001")))
	must(os.Symlink(strings.Repeat("u", 4095), at("link-4095")))
	must(os.Symlink("gone", at("owned-link")))
	must(os.Lchown(at("owned-link"), 12, 34))
	must(unix.Mkfifo(at("fifo"), 0o640))
	must(unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0))
	must(unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Mknod(at("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(0xabc, 0xfedcb))))
	must(os.MkdirAll(at("a/b/c"), 0o750))
	must(os.Link(at("file-4097"), at("a/hard")))
	must(os.Link(at("file-4097"), at("a/b/c/hard")))
	must(os.Link(at("null"), at("a/null-too")))
	must(os.Link(at("link-short"), at("a/link-too")))
	must(unix.Setxattr(at("file-1"), "security.capability",
		[]byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(unix.Setxattr(at("file-1"), "user.comment", []byte("hello\x00world"), 0))
	must(unix.Setxattr(at("file-1"), "user.empty", nil, 0))
	must(unix.Setxattr(at("file-4096"), "user.long", bytes.Repeat([]byte("v"), 3000), 0))
	must(unix.Setxattr(at("file-1984"), "user.long", bytes.Repeat([]byte("v"), 3000), 0)) // too long to be inline
	must(unix.Setxattr(at("file-1983"), "user.long", bytes.Repeat([]byte("v"), 2000), 0))
	must(unix.Setxattr(at("a"), "trusted.dir", []byte("d"), 0))
	must(unix.Lsetxattr(at("link-short"), "trusted.link", []byte("l"), 0))
	must(os.Mkdir(at("big"), 0o755))
	for i := range 3000 {
		file(fmt.Sprintf("big/entry-%d-%s", i, strings.Repeat("x", i%97)), nil, 0o644)
	}
	must(os.Mkdir(at("big/"+"subdir"), 0o755))
	old := time.Date(1931, 5, 1, 1, 2, 3, 123456789, time.UTC)
	must(os.Chtimes(at("file-1"), old, old))
	late := time.Date(2300, 1, 1, 0, 0, 0, 1, time.UTC)
	must(os.Chtimes(at("a"), late, late))
}

// needRoot says why a test cannot run: owners, devices and mounts are root's.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes device nodes and mounts an EROFS image")
	}
}

func packInto(t *testing.T, sources ...erofs.Source) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "image.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	stats, err := erofs.Pack(t.Context(), out, sources...)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(out.Name())
	if err != nil || info.Size() != stats.Size {
		t.Fatalf("image of %d bytes, stats say %d (%v)", info.Size(), stats.Size, err)
	}
	return out.Name()
}

// The kernel shows exactly the tree that was packed.
func TestPackMountsEqual(t *testing.T) {
	needRoot(t)
	src := t.TempDir()
	makeTree(t, src)
	want, err := listing.Of(src, listing.Options{})
	if err != nil {
		t.Fatal(err)
	}
	image := packInto(t, erofs.Source{Path: src, At: "/"})
	if out, err := exec.Command("fsck.erofs", image).CombinedOutput(); err != nil {
		t.Errorf("fsck.erofs: %v\n%s", err, out)
	}
	at := t.TempDir()
	err = listing.Mounted(image, at, func() error {
		got, err := listing.Of(at, listing.Options{})
		if err != nil {
			return err
		}
		if d := listing.Diff(want, got, 40); d != "" {
			t.Errorf("mounted image differs:\n%s", d)
		}
		if len(got) < 3000 {
			t.Errorf("only %d entries", len(got))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Load reads back what Pack wrote.
func TestLoadRoundTrip(t *testing.T) {
	needRoot(t)
	src := t.TempDir()
	makeTree(t, src)
	first, err := os.Open(packInto(t, erofs.Source{Path: src, At: "/"}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	tree, err := erofs.Load(first)
	if err != nil {
		t.Fatal(err)
	}
	if tree.Children["file-4097"] != tree.Children["a"].Children["hard"] {
		t.Error("hard link lost")
	}
	content, err := io.ReadAll(tree.Children["file-4097"].Open(first))
	if want, _ := os.ReadFile(filepath.Join(src, "file-4097")); err != nil || !bytes.Equal(content, want) {
		t.Errorf("file-4097: %d bytes, %v", len(content), err)
	}
	for path, want := range map[string]erofs.Node{
		"disk":  {Major: 0xabc, Minor: 0xfedcb},
		"owned": {UID: 3_000_000_000, GID: 70000},
	} {
		got := tree.Children[path]
		if got.Major != want.Major || got.Minor != want.Minor || got.UID != want.UID || got.GID != want.GID {
			t.Errorf("%s: %+v", path, got)
		}
	}
	if got := tree.Children["file-1"].Xattrs["user.comment"]; got != "hello\x00world" {
		t.Errorf("user.comment is %q", got)
	}
}
