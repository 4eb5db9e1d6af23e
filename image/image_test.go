package image_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/internal/testutil/listing"
	"github.com/duplex-run/duplex/internal/workload"
)

// newStore points duplex at an empty cache for the test.
func newStore(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("DUPLEX_CACHE", dir)
	return dir
}

func resolve(t *testing.T, ref string, opts image.Options) *image.Image {
	t.Helper()
	img, err := image.Resolve(t.Context(), ref, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	})
	return img
}

func readFile(t *testing.T, img *image.Image, name string) string {
	t.Helper()
	fsys, closer, err := img.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closer.Close() }()
	content, err := fs.ReadFile(fsys, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestResolveRootfs(t *testing.T) {
	newStore(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("one"), 0o640); err != nil {
		t.Fatal(err)
	}
	first := resolve(t, "rootfs:"+dir, image.Options{})
	if got := readFile(t, first, "file"); got != "one" {
		t.Errorf("file holds %q", got)
	}
	again := resolve(t, "rootfs:"+dir, image.Options{})
	if again.Digest != first.Digest || again.EROFS != first.EROFS || !again.Imported.Equal(first.Imported) {
		t.Errorf("unchanged directory: %+v, then %+v", first, again)
	}
	if err := os.WriteFile(file, []byte("three"), 0o640); err != nil {
		t.Fatal(err)
	}
	changed := resolve(t, "rootfs:"+dir, image.Options{})
	if got := readFile(t, changed, "file"); got != "three" || changed.Digest == first.Digest {
		t.Errorf("after a change: file holds %q, digest %s", got, changed.Digest)
	}
	byPrefix := resolve(t, first.Digest[:len("sha256:")+12], image.Options{})
	if byPrefix.Digest != first.Digest || byPrefix.Ref != "rootfs:"+dir {
		t.Errorf("by prefix: %+v", byPrefix)
	}
}

// The unpacked tree is the directory again, in every detail.
func TestResolveTree(t *testing.T) {
	newStore(t)
	dir := t.TempDir()
	for _, name := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o751); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a/b/file"), []byte("content"), 0o604); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "a/b/file"), filepath.Join(dir, "c/hard")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../outside", filepath.Join(dir, "c/soft")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "latin-\xe9"), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	want, err := listing.Of(dir, listing.Options{})
	if err != nil {
		t.Fatal(err)
	}
	img := resolve(t, "rootfs:"+dir, image.Options{NeedTree: true})
	got, err := listing.Of(img.Tree, listing.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := listing.Diff(want, got, 20); d != "" {
		t.Errorf("tree differs:\n%s", d)
	}
	if later := resolve(t, "rootfs:"+dir, image.Options{}); later.Tree != img.Tree {
		t.Errorf("tree is forgotten: %q", later.Tree)
	}
}

func TestResolveRefuses(t *testing.T) {
	cache := newStore(t)
	for _, ref := range []string{
		"", "debian", "docker-archive:", "oci:", "ftp:x", "sha256:zz", "abcd", "sha256:abcd",
		"rootfs:/does/not/exist", "rootfs:/etc/passwd", "docker-archive:/does/not/exist", "oci:/etc",
	} {
		_, err := image.Resolve(t.Context(), ref, image.Options{})
		var shown *workload.Error
		if !errors.As(err, &shown) || shown.Op == "" {
			t.Errorf("%q: %v", ref, err)
		}
	}
	assertEmpty(t, filepath.Join(cache, "images"))
}

// assertEmpty fails when a refused import left anything in the store.
func assertEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left behind: %s", e.Name())
	}
}

var _ io.Closer = (*image.Image)(nil)
