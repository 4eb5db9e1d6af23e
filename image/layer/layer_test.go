package layer_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/duplex-run/duplex/image/erofs"
	"github.com/duplex-run/duplex/image/layer"
	"golang.org/x/sys/unix"
)

// entry is a tar entry; the type follows from what is set, or is typ.
type entry struct {
	name     string
	typ      byte
	content  string
	link     string // symbolic link target
	hard     string // hard link target
	mode     int64  // 0 means 0644, or 0755 for a directory
	uid, gid int
	major    int64
	minor    int64
	pax      map[string]string
	mtime    time.Time // zero means some day in 2023
}

func dir(name string) entry           { return entry{name: name, typ: tar.TypeDir} }
func file(name, content string) entry { return entry{name: name, content: content} }
func soft(name, target string) entry  { return entry{name: name, link: target} }
func hard(name, target string) entry  { return entry{name: name, hard: target} }
func opaque(name string) entry        { return file(name+"/.wh..wh..opq", "") }
func whiteout(dir, name string) entry { return file(path.Join(dir, ".wh."+name), "") }
func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.header()
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("%q: %v", e.name, err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func (e entry) header() *tar.Header {
	h := &tar.Header{
		Name: e.name, Typeflag: e.typ, Mode: e.mode, Uid: e.uid, Gid: e.gid, Size: int64(len(e.content)),
		Devmajor: e.major, Devminor: e.minor, PAXRecords: e.pax, ModTime: time.Unix(1700000000, 0),
	}
	if !e.mtime.IsZero() {
		h.ModTime, h.Format = e.mtime, tar.FormatPAX
	}
	switch {
	case e.link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
	case e.hard != "":
		h.Typeflag, h.Linkname = tar.TypeLink, e.hard
	case e.typ == 0:
		h.Typeflag = tar.TypeReg
	}
	if h.Mode == 0 {
		h.Mode = 0o644
		if e.typ == tar.TypeDir {
			h.Mode = 0o755
		}
	}
	return h
}

// merge applies layers and returns the tree and the file its contents are in.
func merge(t testing.TB, limits layer.Limits, layers ...[]byte) (*erofs.Node, *os.File, error) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	w := erofs.NewWriter(out)
	t.Cleanup(w.Close)
	m := layer.NewMerger(w, limits)
	for _, l := range layers {
		if err := m.Apply(t.Context(), bytes.NewReader(l)); err != nil {
			return nil, nil, err
		}
	}
	if _, err := w.Finish(m.Root(), t.Name()); err != nil {
		return nil, nil, err
	}
	root, err := erofs.Load(out)
	return root, out, err
}

// describe lists a tree: "path=content", "path/", "path->target", hard links
// as "path==first name".
func describe(t testing.TB, root *erofs.Node, image io.ReaderAt) []string {
	t.Helper()
	var lines []string
	seen := map[*erofs.Node]string{}
	var walk func(name string, n *erofs.Node)
	walk = func(name string, n *erofs.Node) {
		switch first, again := seen[n]; {
		case again:
			lines = append(lines, name+"=="+first)
			return
		case n.IsDir():
			if name != "" {
				lines = append(lines, name+"/")
			}
		case n.Type() == unix.S_IFLNK:
			lines = append(lines, name+"->"+n.Target)
		default:
			content, err := io.ReadAll(n.Open(image))
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, name+"="+string(content))
		}
		seen[n] = name
		for _, base := range slices.Sorted(maps.Keys(n.Children)) {
			walk(path.Join(name, base), n.Children[base])
		}
	}
	walk("", root)
	return lines
}

// How layers lie over each other.
func TestApplyLayers(t *testing.T) {
	base := []entry{dir("d"), file("d/a", "1"), file("d/b", "2"), dir("d/sub"), file("d/sub/c", "3"), file("top", "t")}
	for _, tc := range []struct {
		name   string
		layers [][]entry
		want   string
	}{
		{"one layer", [][]entry{base}, "d/ d/a=1 d/b=2 d/sub/ d/sub/c=3 top=t"},
		{"replaced file", [][]entry{base, {file("d/a", "new")}}, "d/ d/a=new d/b=2 d/sub/ d/sub/c=3 top=t"},
		{"whiteout of a file", [][]entry{base, {whiteout("d", "a")}}, "d/ d/b=2 d/sub/ d/sub/c=3 top=t"},
		{"whiteout of a directory", [][]entry{base, {whiteout("", "d")}}, "top=t"},
		{"whiteout of nothing", [][]entry{base[:2], {whiteout("d", "x"), whiteout("x/y", "z"), whiteout("d/a", "x")}}, "d/ d/a=1"},
		{"whiteout spares its own layer, after", [][]entry{base, {file("d/sub/n", "n"), whiteout("d", "sub")}}, "d/ d/a=1 d/b=2 d/sub/ d/sub/n=n top=t"},
		{"whiteout spares its own layer, before", [][]entry{base, {whiteout("d", "sub"), dir("d/sub"), file("d/sub/n", "n")}}, "d/ d/a=1 d/b=2 d/sub/ d/sub/n=n top=t"},
		{"opaque, before", [][]entry{base, {opaque("d"), file("d/n", "n")}}, "d/ d/n=n top=t"},
		{"opaque, after", [][]entry{base, {file("d/n", "n"), file("d/sub/m", "m"), opaque("d")}}, "d/ d/n=n d/sub/ d/sub/m=m top=t"},
		{"opaque root", [][]entry{base, {file("n", "n"), file(".wh..wh..opq", "")}}, "n=n"},
		{"whiteout, then again in a third layer", [][]entry{base, {whiteout("", "d")}, {file("d/x", "x")}}, "d/ d/x=x top=t"},
		{"aufs metadata is nothing", [][]entry{base[:1], {file(".wh..wh.plnk", ""), file("d/.wh..wh.aufs", "")}}, "d/"},
		{"file over directory", [][]entry{base, {file("d", "f")}}, "d=f top=t"},
		{"directory over file", [][]entry{base, {dir("top"), file("top/x", "x")}}, "d/ d/a=1 d/b=2 d/sub/ d/sub/c=3 top/ top/x=x"},
		{"directory over link", [][]entry{{dir("real"), soft("l", "real")}, {dir("l"), file("l/x", "x")}}, "l/ l/x=x real/"},
		{"through a link that stays inside", [][]entry{{dir("usr"), dir("usr/lib"), soft("lib", "usr/lib")}, {file("lib/so", "so")}}, "lib->usr/lib usr/ usr/lib/ usr/lib/so=so"},
		{"through a link with ..", [][]entry{{dir("a"), dir("b"), soft("a/l", "../b")}, {file("a/l/x", "x")}}, "a/ a/l->../b b/ b/x=x"},
		{"hard link", [][]entry{{file("a", "1"), dir("d"), hard("d/b", "a")}}, "a=1 d/ d/b==a"},
		{"hard link to a lower layer", [][]entry{{file("a", "1")}, {hard("b", "./a"), hard("c", "/b")}}, "a=1 b==a c==a"},
		{"hard link keeps what the first name loses", [][]entry{{file("a", "1"), hard("b", "a")}, {whiteout("", "a")}}, "b=1"},
		{"replacing one name leaves the other", [][]entry{{file("a", "1"), hard("b", "a")}, {file("a", "2")}}, "a=2 b=1"},
		{"hard link over its own parent", [][]entry{{dir("d"), file("d/f", "1")}, {hard("d", "d/f")}}, "d=1"},
		{"hard link to a link", [][]entry{{soft("s", "nowhere"), hard("h", "s")}}, "h->nowhere s==h"},
		{"link targets may be anything", [][]entry{{soft("a", "/etc/passwd"), soft("b", "../../.."), soft("c", "c")}}, "a->/etc/passwd b->../../.. c->c"},
		{"odd spellings of paths", [][]entry{{dir("./"), dir("./d/"), file("/d//./f", "1")}}, "d/ d/f=1"},
		{"missing directories", [][]entry{{file("x/y/z", "1")}}, "x/ x/y/ x/y/z=1"},
		{"a directory twice", [][]entry{{dir("d"), file("d/f", "1"), dir("d")}}, "d/ d/f=1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var layers [][]byte
			for _, entries := range tc.layers {
				layers = append(layers, pack(t, entries...))
			}
			root, image, err := merge(t, layer.DefaultLimits, layers...)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(describe(t, root, image), " "); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// Metadata comes through as the archive has it.
func TestApplyMetadata(t *testing.T) {
	root, _, err := merge(t, layer.DefaultLimits, pack(t,
		entry{name: "suid", mode: 0o6755, uid: 3_000_000_000, gid: 70000, mtime: time.Unix(1234567890, 123456789), pax: map[string]string{
			"SCHILY.xattr.security.capability": "\x01\x00cap", "SCHILY.xattr.user.x": "y",
			"SCHILY.xattr.security.selinux": "host", "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.weird": "z"}},
		entry{name: "tmp", typ: tar.TypeDir, mode: 0o1777},
		entry{name: "null", typ: tar.TypeChar, mode: 0o666, major: 1, minor: 3},
		entry{name: "disk", typ: tar.TypeBlock, mode: 0o660, major: 0xabc, minor: 0xfedcb},
		entry{name: "fifo", typ: tar.TypeFifo, mode: 0o600},
		entry{name: "link", link: "x", mode: 0o600},
	))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"suid": "106755 3000000000:70000 0:0 1234567890.123456789 map[security.capability:\x01\x00cap user.x:y]",
		"tmp":  "41777 0:0 0:0 1700000000.000000000 map[]",
		"null": "20666 0:0 1:3 1700000000.000000000 map[]",
		"disk": "60660 0:0 2748:1043915 1700000000.000000000 map[]",
		"fifo": "10600 0:0 0:0 1700000000.000000000 map[]",
		"link": "120777 0:0 0:0 1700000000.000000000 map[]",
	} {
		n := root.Children[name]
		got := fmt.Sprintf("%o %d:%d %d:%d %d.%09d %v", n.Mode, n.UID, n.GID, n.Major, n.Minor, n.Sec, n.Nsec, n.Xattrs)
		if got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// header returns a lone header block, whatever follows it.
func header(t testing.TB, h *tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// sparseTar is GNU tar's archive of a file of 1 TiB that holds nothing.
func sparseTar(t testing.TB, format string) []byte {
	t.Helper()
	d := t.TempDir()
	f, err := os.Create(filepath.Join(d, "huge"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(1<<40), f.Close()); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tar", "-C", d, "-S", "--format="+format, "-cf", "-", "huge").Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What is refused, and how it is called.
func TestApplyRefuses(t *testing.T) {
	deep := strings.Repeat("d/", 2047)
	small := layer.Limits{Entries: 4, FileSize: 100, TotalSize: 150, Metadata: 1 << 20}
	nul := pack(t, entry{name: "abc", content: "", pax: map[string]string{"path2": "a-b"}})
	nul = bytes.Replace(nul, []byte("path2=a-b"), []byte("path=a\x00bb"), 1)
	for _, tc := range []struct {
		name   string
		limits layer.Limits
		layer  []byte
		want   error
		text   string
	}{
		{"dot dot", layer.DefaultLimits, pack(t, file("../x", "")), layer.ErrEscape, `"../x"`},
		{"dot dot within", layer.DefaultLimits, pack(t, dir("a"), file("a/../../x", "")), layer.ErrEscape, ""},
		{"dot dot that stays", layer.DefaultLimits, pack(t, dir("a"), file("a/../x", "")), layer.ErrEscape, ""},
		{"absolute dot dot", layer.DefaultLimits, pack(t, file("/../x", "")), layer.ErrEscape, ""},
		{"dot dot at the end", layer.DefaultLimits, pack(t, dir("a/..")), layer.ErrEscape, ""},
		{"through an absolute link", layer.DefaultLimits, pack(t, soft("l", "/etc"), file("l/passwd", "x")), layer.ErrEscape, `"/etc"`},
		{"through a climbing link", layer.DefaultLimits, pack(t, soft("l", "../../etc"), file("l/passwd", "x")), layer.ErrEscape, ""},
		{"through a link to a climbing link", layer.DefaultLimits, pack(t, dir("a"), soft("a/l", "../.."), soft("m", "a/l"), file("m/x", "x")), layer.ErrEscape, ""},
		{"through a link loop", layer.DefaultLimits, pack(t, soft("a", "b"), soft("b", "a"), file("a/x", "x")), layer.ErrLimit, ""},
		{"through a file", layer.DefaultLimits, pack(t, file("f", ""), file("f/x", "")), layer.ErrEntry, ""},
		{"whiteout with dot dot", layer.DefaultLimits, pack(t, whiteout("..", "x"), file("../.wh.x", "")), layer.ErrEscape, ""},
		{"whiteout through an absolute link", layer.DefaultLimits, pack(t, soft("l", "/etc"), whiteout("l", "passwd")), layer.ErrEscape, ""},
		{"whiteout of dot dot", layer.DefaultLimits, pack(t, file(".wh...", "")), layer.ErrEntry, ""},
		{"whiteout of nothing", layer.DefaultLimits, pack(t, file(".wh.", "")), layer.ErrEntry, ""},
		{"hard link out", layer.DefaultLimits, pack(t, hard("h", "../../etc/passwd")), layer.ErrEscape, "hard link"},
		{"hard link to a host file", layer.DefaultLimits, pack(t, hard("h", "/etc/passwd")), nil, "not in the image"},
		{"hard link through an absolute link", layer.DefaultLimits, pack(t, soft("l", "/etc"), hard("h", "l/passwd")), layer.ErrEscape, ""},
		{"hard link to a directory", layer.DefaultLimits, pack(t, dir("d"), hard("h", "d")), layer.ErrEntry, ""},
		{"hard link to the root", layer.DefaultLimits, pack(t, hard("h", "/")), layer.ErrEntry, ""},
		{"hard link to itself", layer.DefaultLimits, pack(t, hard("h", "h")), nil, "not in the image"},
		{"file twice", layer.DefaultLimits, pack(t, file("a", "1"), file("a", "2")), layer.ErrEntry, "second time"},
		{"file, then directory", layer.DefaultLimits, pack(t, file("a", "1"), dir("a")), layer.ErrEntry, "second time"},
		{"root is a file", layer.DefaultLimits, pack(t, file(".", "")), layer.ErrEntry, ""},
		{"root is a link", layer.DefaultLimits, pack(t, soft(".", "/etc")), layer.ErrEntry, "root"},
		{"long name", layer.DefaultLimits, pack(t, file(strings.Repeat("n", 256), "")), layer.ErrLimit, "256 bytes"},
		{"long path", layer.DefaultLimits, pack(t, file(deep+"ddddddddd", "")), layer.ErrLimit, ""},
		{"deeper than any path", layer.DefaultLimits, pack(t, dir(deep), soft("s", deep), dir("s/a/b/c/d")), layer.ErrLimit, "deep"},
		{"long link target", layer.DefaultLimits, pack(t, soft("s", strings.Repeat("t", 4096))), layer.ErrEntry, ""},
		{"NUL in name", layer.DefaultLimits, nul, tar.ErrHeader, ""},
		{"unknown type", layer.DefaultLimits, pack(t, entry{name: "x", typ: 'Z'}), layer.ErrEntry, "unknown type"},
		{"device number", layer.DefaultLimits, pack(t, entry{name: "x", typ: tar.TypeChar, major: 5000}), layer.ErrEntry, "5000"},
		{"owner", layer.DefaultLimits, pack(t, entry{name: "x", uid: 1 << 32}), layer.ErrEntry, "owner"},
		{"huge xattr", layer.DefaultLimits, pack(t, entry{name: "x", pax: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v", 1<<16)}}), erofs.ErrUnsupported, ""},
		{"1 TiB entry", layer.DefaultLimits, header(t, &tar.Header{Name: "huge", Typeflag: tar.TypeReg, Size: 1 << 40}), layer.ErrLimit, "1.0 TiB"},
		{"1 TiB sparse entry, GNU", layer.DefaultLimits, sparseTar(t, "gnu"), layer.ErrLimit, "1.0 TiB"},
		{"1 TiB sparse entry, PAX", layer.DefaultLimits, sparseTar(t, "pax"), layer.ErrLimit, "1.0 TiB"},
		{"one file too big", small, pack(t, file("a", strings.Repeat("x", 101))), layer.ErrLimit, "101 B, at most 100 B"},
		{"all files too big", small, pack(t, file("a", strings.Repeat("x", 99)), file("b", strings.Repeat("x", 99))), layer.ErrLimit, "198 B"},
		{"too many entries", small, pack(t, dir("a"), dir("b"), dir("c"), dir("d"), dir("e")), layer.ErrLimit, "4 entries"},
		{"too much metadata", layer.Limits{Entries: 9, Metadata: 10}, pack(t, dir("0123456789a")), layer.ErrLimit, ""},
		{"truncated content", layer.DefaultLimits, pack(t, file("a", strings.Repeat("x", 5000)))[:2000], io.ErrUnexpectedEOF, ""},
		{"truncated header", layer.DefaultLimits, pack(t, file("a", "x"))[:100], io.ErrUnexpectedEOF, ""},
		{"no tar", layer.DefaultLimits, bytes.Repeat([]byte("garbage."), 200), tar.ErrHeader, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := merge(t, tc.limits, tc.layer)
			if err == nil {
				t.Fatal("accepted")
			}
			if tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
			if !strings.Contains(err.Error(), tc.text) {
				t.Errorf("error %q does not say %q", err, tc.text)
			}
		})
	}
}

// Whatever the archive, merging ends with an error or with a tree that can be
// written and read again.
func FuzzApply(f *testing.F) {
	f.Add(pack(f, dir("d"), file("d/a", "1"), hard("d/b", "d/a"), soft("l", "d")), pack(f, file("l/x", "x"), whiteout("d", "a"), opaque("d")))
	f.Add(pack(f, file("../x", "")), pack(f, hard("h", "../../etc/passwd")))
	f.Add(pack(f, soft("a", "b"), soft("b", "a")), pack(f, file("a/x", "x")))
	f.Add(pack(f, entry{name: "x", pax: map[string]string{"SCHILY.xattr.user.x": "v"}}), sparseTar(f, "gnu"))
	limits := layer.Limits{Entries: 1000, FileSize: 1 << 20, TotalSize: 4 << 20, Metadata: 1 << 20}
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		root, image, err := merge(t, limits, lower, upper)
		if err == nil {
			describe(t, root, image)
		}
	})
}
