package kernel

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/duplex-run/duplex/internal/workload"
)

// payloads returns smallELF(extra) packed in each way, as in a bzImage. The ones
// that Go cannot pack come from files and have no extra.
func payloads(t testing.TB) map[string][]byte {
	t.Helper()
	plain := smallELF(nil)
	var gz, zs, l4 bytes.Buffer
	gw := gzip.NewWriter(&gz)
	zw, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	lw := lz4.NewWriter(&l4)
	if err := lw.Apply(lz4.LegacyOption(true)); err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{gw, zw, lw} {
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	out := map[string][]byte{
		"gzip": gz.Bytes(), // ends with the size of its own
		"zstd": sized(zs.Bytes(), len(plain)),
		"lz4":  sized(l4.Bytes(), len(plain)),
	}
	for name, file := range map[string]string{"xz": "smallelf.xz", "bzip2": "smallelf.bz2"} {
		data, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = sized(data, len(plain))
	}
	return out
}

func TestVmlinuxFromEachCompression(t *testing.T) {
	for name, payload := range payloads(t) {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DUPLEX_CACHE", t.TempDir())
			k, err := Find(writeTemp(t, "bzImage", bzImageOf(payload)))
			if err != nil {
				t.Fatal(err)
			}
			path, err := k.Vmlinux(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(loaded(t, got), loaded(t, smallELF(nil))) {
				t.Error("loads other bytes than the ELF file that was packed")
			}
			info, err := Inspect(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			if info.BzImage.Compression != name || info.Release != "6.6.6-test" || info.Vmlinux.PVHEntry != 0x1000850 || info.Vmlinux.Entry != 0x1000000 {
				t.Errorf("inspect: %+v %+v %+v", info, info.BzImage, info.Vmlinux)
			}
		})
	}
}

// loaded is what a loader makes of an ELF file: its segments, one after the other.
func loaded(t testing.TB, file []byte) []byte {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			segment := make([]byte, p.Memsz)
			if _, err := p.ReadAt(segment[:p.Filesz], 0); err != nil {
				t.Fatal(err)
			}
			out = append(out, segment...)
		}
	}
	return out
}

func TestTrimSegments(t *testing.T) {
	for _, zeros := range []int{0, 1, 100, 64 << 10, 64<<10 + 1, 200_000} {
		plain := smallELF(append([]byte("last"), make([]byte, zeros)...))
		f, err := os.Create(filepath.Join(t.TempDir(), "vmlinux"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if _, err := f.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := trimSegments(f); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(loaded(t, got), loaded(t, plain)) {
			t.Errorf("%d zeros: loads other bytes", zeros)
		}
		e, err := elf.NewFile(bytes.NewReader(got))
		if err != nil {
			t.Fatal(err)
		}
		if p := e.Progs[0]; p.Memsz-p.Filesz != uint64(zeros) {
			t.Errorf("%d zeros: %d taken out", zeros, p.Memsz-p.Filesz)
		}
	}
	if n, err := trimmedSize(bytes.NewReader(make([]byte, 100_000)), 100_000); n != 0 || err != nil {
		t.Errorf("all zeros: size %d, %v", n, err)
	}
}

// Every way to break a payload is an error with a remedy that leaves no file.
func TestBrokenPayloads(t *testing.T) {
	good := payloads(t)
	plain := len(smallELF(nil))
	cases := map[string][]byte{
		"unknown compression": sized([]byte("not compressed at all"), 21),
		"lzma":                sized([]byte("\x5d\x00\x00\x80\x00and more"), 21),
		"lzo":                 sized([]byte("\x89LZO\x00\x0d\x0aand more"), 21),
		"no kernel inside":    gzipped(t, []byte("hello")),
		"magic alone":         []byte("\x02\x21\x4c\x18"),
		"lz4 block too large": sized([]byte("\x02\x21\x4c\x18\xff\xff\xff\x7fabc"), 3),
		"lz4 block size 0":    sized([]byte("\x02\x21\x4c\x18\x00\x00\x00\x00"), 3),
		"gzip bomb":           append(gzipped(t, make([]byte, 8<<20))[:8000], 1, 0, 0, 0),
		"claims 4 GiB":        sized(good["zstd"][:len(good["zstd"])-4], 0xffffffff),
	}
	for name, p := range good {
		body := p[:len(p)-4]
		cases[name+" truncated"] = sized(body[:len(body)/2], plain)
		cases[name+" says too little"] = sized(body, plain-1)
		cases[name+" says too much"] = sized(body, plain+1)
	}
	for name, payload := range cases {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			t.Setenv("DUPLEX_CACHE", cache)
			k, err := Find(writeTemp(t, "bzImage", bzImageOf(payload)))
			if err != nil {
				t.Fatal(err)
			}
			_, err = k.Vmlinux(t.Context())
			var werr *workload.Error
			if !errors.As(err, &werr) || werr.Remedy == "" {
				t.Errorf("got %v, want an error with a remedy", err)
			}
			if left, _ := filepath.Glob(filepath.Join(cache, "vmlinux", "*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			info, err := Inspect(t.Context(), k)
			if err != nil || info.Problem == "" || info.Release != "6.6.6-test" {
				t.Errorf("inspect: %+v, %v; want what the header says, and a problem", info, err)
			}
		})
	}
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDecompressIsBounded(t *testing.T) {
	var n countWriter
	_, err := decompress(&n, sized(gzipped(t, make([]byte, 64<<20)), 100))
	if err == nil || n > 101 {
		t.Errorf("wrote %d bytes of a payload that says 100: %v", n, err)
	}
}

type countWriter int

func (c *countWriter) Write(p []byte) (int, error) { *c += countWriter(len(p)); return len(p), nil }

func TestUnreadableCompressionIsNamed(t *testing.T) {
	for magic, name := range unreadable {
		if _, err := detect([]byte(magic + "rest")); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: got %v, want its name %s", magic, err, name)
		}
	}
}
