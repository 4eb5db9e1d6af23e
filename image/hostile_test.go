package image_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/internal/workload"
)

// Both formats, compressed or not, give the same files.
func TestImportFormats(t *testing.T) {
	lower := tarOf(t, text("etc/passwd", "root:x:0:0::/root:\napp:x:12:34::/app:\n"),
		text("etc/group", "extra:x:99:app\n"), text("gone", "x"), text("kept", "one"))
	upper := tarOf(t, text(".wh.gone", ""), text("new", "two"))
	for name, layers := range map[string][]blob{
		"plain": {plain(lower), plain(upper)},
		"gzip":  {{gzipped(t, lower), lower}, {gzipped(t, upper), upper}},
		"zstd":  {{zstded(t, lower), lower}, {zstded(t, upper), upper}},
	} {
		for _, ref := range []string{dockerArchive(t, layers...), ociLayout(t, layers...)} {
			t.Run(name, func(t *testing.T) {
				newStore(t)
				img := resolve(t, ref, image.Options{})
				if got := readFile(t, img, "kept") + readFile(t, img, "new"); got != "onetwo" {
					t.Errorf("files hold %q", got)
				}
				if files := names(t, img); files != "etc kept new" {
					t.Errorf("files are %s", files)
				}
				user, err := img.User("")
				if err != nil || user.UID != 12 || user.GID != 34 || user.Home != "/app" || len(user.Groups) != 1 || user.Groups[0] != 99 {
					t.Errorf("user %+v, %v", user, err)
				}
				c := img.Config
				if len(c.Cmd) != 1 || c.Cmd[0] != "/cmd" || c.Env[0] != "A=b" || c.StopSignal != "SIGQUIT" {
					t.Errorf("configuration %+v", c)
				}
			})
		}
	}
}

// Older dockers store a layer that occurs twice as a link to the first.
func TestImportLinkedLayer(t *testing.T) {
	newStore(t)
	b := plain(tarOf(t, text("file", "1")))
	members := dockerMembers(t, config(t, b, b), b, b)
	members[2] = member{name: members[2].name, link: "../layer0/layer.tar"}
	img := resolve(t, "docker-archive:"+writeFile(t, tarOf(t, members...)), image.Options{})
	if got := readFile(t, img, "file"); got != "1" {
		t.Errorf("file holds %q", got)
	}
}

// names lists the root directory of an image.
func names(t *testing.T, img *image.Image) string {
	t.Helper()
	fsys, closer, err := img.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closer.Close() }()
	f, err := fsys.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := f.(interface {
		ReadDir(int) ([]os.DirEntry, error)
	}).ReadDir(-1)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

// Everything that is refused says why, and leaves nothing in the store or
// beside it. What single layers are refused for is package layer's test.
func TestImportRefuses(t *testing.T) {
	good := tarOf(t, text("a", strings.Repeat("0123456789abcdef", 1<<16)))
	packed := gzipped(t, good)
	escape := tarOf(t, text("../../../../escaped", "x"))
	through := tarOf(t, member{name: "l", link: "/tmp"}, text("l/escaped", "x"))
	flipped := bytes.Clone(packed)
	flipped[len(flipped)/2] ^= 1
	other := plain(tarOf(t, text("b", "2")))
	docker := func(members ...member) string {
		return "docker-archive:" + writeFile(t, tarOf(t, members...))
	}
	for _, tc := range []struct{ name, ref, want string }{
		{"dot dot, docker", dockerArchive(t, plain(escape)), "leaves the image"},
		{"dot dot, OCI", ociLayout(t, plain(escape)), "leaves the image"},
		{"dot dot in the second layer", ociLayout(t, plain(good), plain(escape)), "layer 2 of 2"},
		{"through a link, docker", dockerArchive(t, plain(through)), "leaves the image"},
		{"through a link, OCI", ociLayout(t, blob{gzipped(t, through), through}), "leaves the image"},
		{"truncated gzip, docker", dockerArchive(t, blob{packed[:len(packed)/2], good}), "truncated"},
		{"truncated gzip, OCI", ociLayout(t, blob{packed[:len(packed)/2], good}), "truncated"},
		{"truncated in the gzip header", ociLayout(t, blob{packed[:5], good}), "truncated"},
		{"truncated gzip trailer", ociLayout(t, blob{packed[:len(packed)-4], good}), "truncated"},
		{"truncated zstd", ociLayout(t, blob{zstded(t, good)[:50], good}), "truncated"},
		{"truncated tar", ociLayout(t, blob{good[:len(good)/2], good}), "truncated"},
		{"truncated at an entry", ociLayout(t, blob{nil, good}), "digest mismatch"},
		{"damaged gzip", ociLayout(t, blob{flipped, good}), ""},
		{"another layer, docker", dockerArchive(t, blob{other.stored, good}), "digest mismatch"},
		{"another layer, OCI", ociLayout(t, blob{other.stored, good}), "digest mismatch"},
		{"another blob under the name", swappedBlob(t), "digest mismatch"},
		{"another manifest under the name", swappedManifest(t), "digest mismatch"},
		{"another configuration, docker", docker(renamed(dockerMembers(t, config(t, other), other))...), "digest mismatch"},
		{"fewer layers than diff ids", docker(dockerMembers(t, config(t, plain(good), other), other)...), "configuration names 2"},
		{"more layers than diff ids", docker(dockerMembers(t, config(t), other)...), "configuration names 0"},
		{"layer not in the archive", docker(dockerMembers(t, config(t, other), other)[0], dockerMembers(t, config(t, other), other)[2]), "not in the archive"},
		{"layer link out of the archive", docker(linked(dockerMembers(t, config(t, other), other), "../../../../etc/passwd")...), "not in the archive"},
		{"layer link to itself", docker(linked(dockerMembers(t, config(t, other), other), "layer.tar")...), "not in the archive"},
		{"configuration is no JSON", docker(dockerMembers(t, []byte("{"))...), "configuration"},
		{"other architecture", docker(dockerMembers(t, []byte(`{"os":"linux","architecture":"arm64","rootfs":{"type":"layers","diff_ids":[]}}`))...), "linux/arm64"},
		{"strange diff id", docker(dockerMembers(t, []byte(`{"rootfs":{"type":"layers","diff_ids":["md5:../../x"]}}`))...), ""},
		{"no manifest", docker(text("x", "y")), "manifest.json"},
		{"manifest is no JSON", docker(text("manifest.json", "[")), "manifest.json"},
		{"no image in the manifest", docker(text("manifest.json", "[]")), "holds 0 images"},
		{"two images", docker(text("manifest.json", "[{},{}]")), "holds 2 images"},
		{"huge manifest", docker(text("manifest.json", strings.Repeat(" ", 5<<20))), "over the limit"},
		{"truncated archive", "docker-archive:" + writeFile(t, tarOf(t, dockerMembers(t, config(t, plain(good)), plain(good))...)[:1<<19]), "truncated"},
		{"no archive", "docker-archive:" + writeFile(t, []byte(strings.Repeat("not a tar. ", 100))), "read tar"},
		{"compressed archive", "docker-archive:" + writeFile(t, gzipped(t, tarOf(t, text("manifest.json", "[]")))), "run gunzip"},
		{"directory as archive", "docker-archive:" + t.TempDir(), ""},
		{"device as archive", "docker-archive:/dev/zero", "not a regular file"},
		{"FIFO as archive", "docker-archive:" + fifo(t), "not a regular file"},
		{"FIFO as blob", fifoBlob(t), "not a regular file"},
		{"link out of the layout", linkedBlob(t), ""},
		{"no layout", "oci:" + t.TempDir(), "no OCI image layout"},
		{"digest that is a path", pathDigest(t), ""},
		{"index of itself", deepIndex(t), "over the limit"},
		{"two images in a layout", twoImages(t, ""), "several images"},
		{"no such tag", twoImages(t, ":three"), `no image tagged "three"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cache := newStore(t)
			_, err := image.Resolve(t.Context(), tc.ref, image.Options{NeedTree: true})
			var shown *workload.Error
			if !errors.As(err, &shown) {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not say %q", err, tc.want)
			}
			assertEmpty(t, filepath.Join(cache, "images"))
		})
	}
	for _, name := range []string{"/escaped", "/tmp/escaped"} {
		if _, err := os.Lstat(name); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

// A tag chooses among the images of a layout.
func TestImportTag(t *testing.T) {
	newStore(t)
	for tag, want := range map[string]string{"one": "1", "two": "2"} {
		img := resolve(t, twoImages(t, ":"+tag), image.Options{})
		if got := readFile(t, img, "file"); got != want {
			t.Errorf("%s: file holds %q", tag, got)
		}
	}
}

func twoImages(t *testing.T, tag string) string {
	l := newLayout(t)
	var list []map[string]any
	for i, name := range []string{"one", "two"} {
		b := plain(tarOf(t, text("file", fmt.Sprint(i+1))))
		d := l.image(config(t, b), b)
		d["annotations"] = map[string]string{"org.opencontainers.image.ref.name": name}
		list = append(list, d)
	}
	foreign := plain(tarOf(t, text("file", "arm")))
	d := l.image(config(t, foreign), foreign)
	d["platform"] = map[string]string{"os": "linux", "architecture": "arm64"}
	l.index(append(list, d)...)
	return "oci:" + l.dir + tag
}

// renamed gives the configuration another digest's name.
func renamed(members []member) []member {
	wrong := sum([]byte("other")) + ".json"
	right := members[0].name
	members[0].name = wrong
	last := &members[len(members)-1]
	last.content = bytes.ReplaceAll(last.content, []byte(right), []byte(wrong))
	return members
}

// linked makes the layer a link.
func linked(members []member, target string) []member {
	members[1] = member{name: members[1].name, link: target}
	return members
}

func swappedBlob(t *testing.T) string {
	l := newLayout(t)
	b := plain(tarOf(t, text("a", "1")))
	l.index(l.image(config(t, b), b))
	// The same tar, so that only the blob's own digest tells.
	l.write("blobs/sha256/"+sum(b.stored), gzipped(t, b.plain))
	return "oci:" + l.dir
}

func swappedManifest(t *testing.T) string {
	l := newLayout(t)
	b := plain(tarOf(t, text("a", "1")))
	d := l.image(config(t, b), b)
	l.index(d)
	l.write("blobs/sha256/"+strings.TrimPrefix(d["digest"].(string), "sha256:"), []byte(`{}`))
	return "oci:" + l.dir
}

func fifo(t *testing.T) string {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func fifoBlob(t *testing.T) string {
	l := newLayout(t)
	b := plain(tarOf(t, text("a", "1")))
	l.index(l.image(config(t, b), b))
	replace(t, l, b, func(name string) error { return unix.Mkfifo(name, 0o600) })
	return "oci:" + l.dir
}

func linkedBlob(t *testing.T) string {
	l := newLayout(t)
	b := plain(tarOf(t, text("a", "1")))
	l.index(l.image(config(t, b), b))
	outside := writeFile(t, b.stored)
	replace(t, l, b, func(name string) error { return os.Symlink(outside, name) })
	return "oci:" + l.dir
}

func replace(t *testing.T, l *layout, b blob, f func(name string) error) {
	t.Helper()
	name := filepath.Join(l.dir, "blobs/sha256", sum(b.stored))
	if err := errors.Join(os.Remove(name), f(name)); err != nil {
		t.Fatal(err)
	}
}

func pathDigest(t *testing.T) string {
	l := newLayout(t)
	l.index(map[string]any{"mediaType": typeManifest, "digest": "sha256:../../../../etc/passwd", "size": 1})
	return "oci:" + l.dir
}

func deepIndex(t *testing.T) string {
	l := newLayout(t)
	d := l.image(config(t))
	for range 10 {
		d = l.blob(typeIndex, indexOf(t, d))
	}
	l.index(d)
	return "oci:" + l.dir
}

// FuzzDockerArchive and FuzzOCI feed arbitrary documents to the importers.
func FuzzDockerArchive(f *testing.F) {
	b := plain(tarOf(f, text("a", "1")))
	f.Add(tarOf(f, dockerMembers(f, config(f, b), b)...))
	f.Add(tarOf(f, linked(dockerMembers(f, config(f, b), b), "../x")...))
	f.Fuzz(func(t *testing.T, archive []byte) {
		t.Setenv("DUPLEX_CACHE", t.TempDir())
		img, err := image.Resolve(t.Context(), "docker-archive:"+writeFile(t, archive), image.Options{})
		if err == nil {
			if _, err := img.User("0"); err != nil {
				t.Error(err)
			}
			if err := img.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func FuzzOCI(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`), []byte(`{"layers":[]}`), []byte(`{"os":"linux"}`))
	f.Add(indexOf(f, map[string]any{"digest": "sha256:" + sum(nil)}), []byte(`{}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, index, manifest, config []byte) {
		t.Setenv("DUPLEX_CACHE", t.TempDir())
		l := newLayout(t)
		l.write("index.json", index)
		l.blob(typeManifest, manifest)
		l.blob(typeConfig, config)
		img, err := image.Resolve(t.Context(), "oci:"+l.dir, image.Options{})
		if err == nil {
			_ = img.Close()
		}
	})
}

// FuzzParseReference: what is parsed prints as something that parses the same.
func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"builtin", "oci:/a:b", "oci:a:b/c", "docker-archive:x:y", "sha256:abcd", "abcdef", "rootfs:."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := image.ParseReference(s)
		if err != nil {
			return
		}
		again, err := image.ParseReference(ref.String())
		if err != nil || again != ref {
			t.Errorf("%q is %+v, which prints %q, which is %+v (%v)", s, ref, ref, again, err)
		}
	})
}
