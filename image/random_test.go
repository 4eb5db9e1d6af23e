package image_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/internal/testutil/listing"
)

// randomLayers writes layers as a builder of images would, of few names so that
// they meet often: files, directories, links, hard links within the layer, and
// whiteouts and opaque marks of what lies below.
func randomLayers(t *testing.T, rnd *rand.Rand, dirs []string) []blob {
	t.Helper()
	var layers []blob
	for range 2 + rnd.IntN(4) {
		layers = append(layers, plain(randomLayer(t, rnd, dirs)))
	}
	return layers
}

func randomLayer(t *testing.T, rnd *rand.Rand, dirs []string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	made := map[string]byte{} // in this layer, by path
	files := []string{}
	pick := func(list []string) string { return list[rnd.IntN(len(list))] }
	emit := func(h *tar.Header, content string) {
		h.ModTime = time.Unix(1_600_000_000+rnd.Int64N(1e8), rnd.Int64N(1e9))
		h.Format = tar.FormatPAX
		h.Uid, h.Gid, h.Size = rnd.IntN(3)*1000, rnd.IntN(3), int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	dirs = slices.Clone(dirs)
	emit(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	for range 3 + rnd.IntN(12) {
		dir := pick(dirs)
		name := path.Join(dir, pick([]string{"a", "b", "c", "d"}))
		if made[name] != 0 {
			continue
		}
		switch rnd.IntN(10) {
		case 0, 1, 2:
			made[name] = tar.TypeDir
			dirs = append(dirs, name)
			emit(&tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o700 + rnd.Int64N(0o100)}, "")
		case 3, 4, 5:
			made[name] = tar.TypeReg
			files = append(files, name)
			emit(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: rnd.Int64N(0o10000)}, fmt.Sprint(rnd.IntN(1000)))
		case 6:
			made[name] = tar.TypeSymlink
			emit(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: pick([]string{"a", "b", "b/c", "none"}), Mode: 0o777}, "")
		case 7:
			if len(files) > 0 {
				made[name] = tar.TypeLink
				emit(&tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: pick(files), Mode: 0o644}, "")
			}
		case 8:
			made[name] = 'w'
			emit(&tar.Header{Name: path.Join(dir, ".wh."+path.Base(name)), Typeflag: tar.TypeReg}, "")
		case 9:
			mark := path.Join(dir, ".wh..wh..opq")
			if made[mark] == 0 && dir != "." {
				made[mark] = 'o'
				emit(&tar.Header{Name: mark, Typeflag: tar.TypeReg}, "")
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Random layers, merged, are what umoci unpacks of them.
func TestRandomLayersEqualUmoci(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: umoci sets owners")
	}
	newStore(t)
	count := 60
	if testing.Short() {
		count = 10
	}
	for _, tc := range []struct {
		name string
		dirs []string // where entries may go without the layer having them
		opts listing.Options
		// refused is how many images one of the two may refuse: umoci fails
		// on a hard link that takes the place of its own parent, duplex
		// refuses a second entry for a file under another name.
		refused int
	}{
		{"parents in the layer", []string{"."}, listing.Options{}, 0},
		// umoci gives directories that no layer has the time of unpacking.
		{"parents elsewhere", []string{".", "a", "b", "a/b", "c/d"}, listing.Options{NoTimes: true}, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			refused := 0
			for seed := range uint64(count) {
				layers := randomLayers(t, rand.New(rand.NewPCG(seed, 0)), tc.dirs)
				if !sameAsUmoci(t, seed, layers, tc.opts) {
					refused++
				}
			}
			if refused > tc.refused {
				t.Errorf("%d of %d images were refused by one side", refused, count)
			}
		})
	}
}

// sameAsUmoci reports whether both unpacked the image, or neither did.
func sameAsUmoci(t *testing.T, seed uint64, layers []blob, opts listing.Options) bool {
	t.Helper()
	l := newLayout(t)
	d := l.image(bytes.Replace(config(t, layers...), []byte(`"app"`), []byte(`"0"`), 1), layers...)
	d["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "latest"}
	l.index(d)
	bundle := filepath.Join(t.TempDir(), "bundle")
	_, umociErr := exec.Command("umoci", "unpack", "--image", l.dir+":latest", bundle).CombinedOutput()
	img, err := image.Resolve(t.Context(), "oci:"+l.dir, image.Options{NeedTree: true})
	if err != nil || umociErr != nil {
		return (err == nil) == (umociErr == nil)
	}
	defer func() { _ = img.Close() }()
	want, err := listing.Of(filepath.Join(bundle, "rootfs"), opts)
	if err != nil {
		t.Fatal(err)
	}
	got, err := listing.Of(img.Tree, opts)
	if err != nil {
		t.Fatal(err)
	}
	if diff := listing.Diff(want, got, 10); diff != "" {
		t.Errorf("seed %d:\n%s", seed, diff)
	}
	return true
}
