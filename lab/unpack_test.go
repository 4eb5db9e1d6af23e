package lab

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type entry struct {
	name string
	kind byte
	size int64 // of the header; the data is body
	body string
	link string
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		size := int64(len(e.body))
		if e.size != 0 {
			size = e.size
		}
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: e.kind, Name: e.name, Linkname: e.link, Size: size, Mode: 0o4755, ModTime: time.Unix(1e9, 0)}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close() // fails for a body that is shorter than its header says
	return b.Bytes()
}

// ground is a directory with a place to return to and things around it that
// nobody may touch.
func ground(t testing.TB) (dir string, r *receiver) {
	t.Helper()
	dir = t.TempDir()
	for _, d := range []string{"back/sub", "other", "back/cache"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, "other/file"), []byte("mine"), 0o600),
		os.WriteFile(filepath.Join(dir, "single"), []byte("old"), 0o600),
		os.Symlink("../other", filepath.Join(dir, "back/out")),
		os.Symlink("../other/file", filepath.Join(dir, "back/outfile")),
		os.Symlink("sub", filepath.Join(dir, "back/in")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir, &receiver{back: []string{filepath.Join(dir, "back"), filepath.Join(dir, "single")}, limit: 1000,
		skip: []string{filepath.Join(dir, "back/cache")}}
}

// listing is every file below dir with its content.
func listing(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if d.Type()&fs.ModeSymlink != 0 {
			out[rel], err = os.Readlink(p)
			return err
		}
		data, err := os.ReadFile(p)
		out[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUnpack(t *testing.T) {
	dir, r := ground(t)
	at := strings.TrimPrefix(dir, "/")
	want := listing(t, dir)
	want["back/new"], want["back/a/b/.c"], want["back/sub/x"], want["single"] = "1", "22", "in", "333"
	want["back/outfile"] = "5" // the link is replaced, not followed
	err := r.unpack(bytes.NewReader(archive(t,
		entry{name: at + "/back/new", body: "1"},
		entry{name: at + "/back/a/b/.c", body: "22"},
		entry{name: at + "/back/in/x", body: "in"},
		entry{name: at + "/single", body: "333"},
		entry{name: at + "/back/cache/own", body: "4"},
		entry{name: at + "/back/outfile", body: "5"},
	)))
	if err != nil {
		t.Fatal(err)
	}
	got := listing(t, dir)
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s: %q, want %q", name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	info, err := os.Stat(filepath.Join(dir, "single"))
	if err != nil || info.Mode() != 0o755 || !info.ModTime().Equal(time.Unix(1e9, 0)) {
		t.Errorf("mode %v, time %v (%v): want 0755 without setuid", info.Mode(), info.ModTime(), err)
	}
}

// What a hostile lab sends is refused and changes nothing.
func TestUnpackRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		e    func(at string) entry
		want string
	}{
		"outside":             {func(at string) entry { return entry{name: at + "/other/file"} }, errNotAsked.Error()},
		"sibling by prefix":   {func(at string) entry { return entry{name: at + "/backup"} }, errNotAsked.Error()},
		"below a single file": {func(at string) entry { return entry{name: at + "/single/x"} }, ""},
		"dots":                {func(at string) entry { return entry{name: at + "/back/../other/file"} }, errNotAsked.Error()},
		"absolute":            {func(at string) entry { return entry{name: "/" + at + "/back/x"} }, errNotAsked.Error()},
		"the directory":       {func(at string) entry { return entry{name: at + "/back"} }, ""},
		"empty":               {func(string) entry { return entry{name: ""} }, errNotAsked.Error()},
		"through a link":      {func(at string) entry { return entry{name: at + "/back/out/file"} }, "escapes"},
		"symlink": {func(at string) entry {
			return entry{name: at + "/back/l", kind: tar.TypeSymlink, link: "/etc"}
		}, errNotAsked.Error()},
		"hard link": {func(at string) entry {
			return entry{name: at + "/back/l", kind: tar.TypeLink, link: "/etc/passwd"}
		}, errNotAsked.Error()},
		"device":     {func(at string) entry { return entry{name: at + "/back/d", kind: tar.TypeChar} }, errNotAsked.Error()},
		"directory":  {func(at string) entry { return entry{name: at + "/back/d", kind: tar.TypeDir} }, errNotAsked.Error()},
		"a terabyte": {func(at string) entry { return entry{name: at + "/back/big", size: 1 << 40} }, errTooLong.Error()},
		"a kilobyte": {func(at string) entry { return entry{name: at + "/back/big", size: 1001} }, errTooLong.Error()},
		"cut short":  {func(at string) entry { return entry{name: at + "/back/cut", size: 900, body: "x"} }, "EOF"},
		"over a directory": {func(at string) entry {
			return entry{name: at + "/back/sub", body: "x"}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, r := ground(t)
			before := listing(t, dir)
			err := r.unpack(bytes.NewReader(archive(t, tt.e(strings.TrimPrefix(dir, "/")))))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if after := listing(t, dir); len(after) != len(before) || after["other/file"] != "mine" || after["single"] != "old" {
				t.Errorf("before %v\nafter %v", before, after)
			}
		})
	}
}

// Whatever the lab sends, nothing outside the places it may write changes, and
// no part file stays.
func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, entry{name: "R/back/new", body: "1"}, entry{name: "R/single", body: "2"}))
	f.Add(archive(f, entry{name: "R/back/out/x", body: "1"}))
	f.Add(archive(f, entry{name: "R/back/../other/file", body: "1"}))
	f.Add([]byte("no archive"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir, r := ground(t)
		// The seeds cannot know the directory: R/ stands for it, where it fits.
		if at := strings.TrimPrefix(dir, "/"); len(at) < 90 {
			data = retarget(data, at)
		}
		_ = r.unpack(bytes.NewReader(data))
		got := listing(t, dir)
		if got["other/file"] != "mine" {
			t.Error("other/file was touched")
		}
		for name := range got {
			if strings.Contains(name, ".duplex-") || !strings.HasPrefix(name, "back/") && name != "single" && name != "other/file" {
				t.Errorf("%s is there", name)
			}
		}
	})
}

// retarget rewrites names that start with R/ and the checksums of their headers.
func retarget(data []byte, at string) []byte {
	out := bytes.Clone(data)
	for i := 0; i+512 <= len(out); i += 512 {
		h := out[i : i+512]
		name, _, _ := bytes.Cut(h[:100], []byte{0})
		rest, ok := bytes.CutPrefix(name, []byte("R/"))
		if !ok || len(at)+1+len(rest) > 100 {
			continue
		}
		full := append([]byte(at+"/"), bytes.Clone(rest)...)
		clear(h[:100])
		copy(h, full)
		copy(h[148:156], "        ")
		sum := 0
		for _, b := range h {
			sum += int(b)
		}
		for j := 5; j >= 0; j-- {
			h[148+j] = byte('0' + sum&7)
			sum >>= 3
		}
		h[154], h[155] = 0, ' '
	}
	return out
}
