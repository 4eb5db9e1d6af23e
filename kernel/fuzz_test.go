package kernel

import (
	"bytes"
	"io"
	"testing"
)

func FuzzBzImageHeader(f *testing.F) {
	good := bzImageOf(sized([]byte("\x02\x21\x4c\x18"), 0))
	f.Add(good)
	f.Add(good[:headerEnd])
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := parseBzImage(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		if img.payload < 0 || img.length <= 0 || img.payload+img.length > int64(len(data)) {
			t.Errorf("payload of %d at %d is outside %d bytes", img.length, img.payload, len(data))
		}
		if !printable([]byte(img.version)) {
			t.Errorf("version %q", img.version)
		}
	})
}

func FuzzPayload(f *testing.F) {
	for _, p := range payloads(f) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// The size at the end bounds the output; keep the fuzzer's small.
		if len(data) >= 4 && (data[len(data)-1] != 0 || data[len(data)-2] > 8) {
			return
		}
		var n countWriter
		got, err := decompress(&n, data)
		if err == nil && got != int64(n) {
			t.Errorf("says %d, wrote %d", got, n)
		}
	})
}

func FuzzELF(f *testing.F) {
	f.Add(smallELF(nil))
	f.Add(smallELF([]byte(ikStart + "\x1f\x8b" + ikEnd)))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, size := bytes.NewReader(data), int64(len(data))
		if checkELF(r, size) != nil {
			return
		}
		_, _, _ = entries(r)
		_, _ = bannerVersion(r, size)
		_, _ = embeddedConfig(r, size)
		if err := trimSegments(memFile(bytes.Clone(data))); err != nil {
			t.Errorf("checked, but %v", err)
		}
	})
}

// memFile is a file in memory that cannot grow.
type memFile []byte

func (m memFile) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(p, off) }

func (m memFile) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(m)) || copy(m[off:], p) < len(p) {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func FuzzNotes(f *testing.F) {
	f.Add(pvhNoteBytes(0x1000850))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x12\x00\x00\x00Xen\x00"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = pvhEntry(data) })
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("CONFIG_A=y\n# CONFIG_B is not set\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data)
		if err == nil && len(c) == 0 {
			t.Error("no error and no option")
		}
		for option := range c {
			if !isOption(option) {
				t.Errorf("option %q", option)
			}
		}
	})
}

func FuzzModule(f *testing.F) {
	f.Add(moduleELF("depends=a,b", "softdep=pre: c post: d", "alias=e"))
	f.Add(gzipped(f, moduleELF("depends=")))
	f.Fuzz(func(_ *testing.T, data []byte) {
		obj, err := readModule(bytes.NewReader(data))
		if err != nil {
			return
		}
		_, _ = parseModinfo(bytes.NewReader(obj))
	})
}

func FuzzDepends(f *testing.F) {
	f.Add("Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n")
	f.Fuzz(func(t *testing.T, description string) {
		ref, err := parseDepends(description)
		if err != nil {
			return
		}
		for _, s := range []string{ref.release(), ref.Version} {
			if s == "" || s[0] == '-' || s[0] == '.' || bytes.ContainsAny([]byte(s), "/ \n\x00") {
				t.Errorf("%q becomes a file name and an argument", s)
			}
		}
	})
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte("dlstatus:1:12.5:Retrieving file 1 of 1\n"))
	f.Fuzz(func(_ *testing.T, data []byte) { readStatus(io.NopCloser(bytes.NewReader(data)), func(float64) {}) })
}
