package kernel

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/xi2/xz"
)

// compression is a format that a kernel or a module may be compressed with.
type compression struct {
	name  string
	magic string
	open  func(r io.Reader) (io.ReadCloser, error)
}

// The formats of arch/x86/boot/compressed, but for lzo and lzma, which no
// distribution uses and no library here reads.
var compressions = []compression{
	{"gzip", "\x1f\x8b", func(r io.Reader) (io.ReadCloser, error) {
		zr, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		zr.Multistream(false) // the kernel's payload has its size appended
		return zr, nil
	}},
	{"bzip2", "BZh", func(r io.Reader) (io.ReadCloser, error) {
		return io.NopCloser(bzip2.NewReader(r)), nil
	}},
	// xz with the x86 BCJ filter, as scripts/xz_wrap.sh makes it.
	{"xz", "\xfd7zXZ\x00", func(r io.Reader) (io.ReadCloser, error) {
		zr, err := xz.NewReader(r, xzMaxDict)
		if err != nil {
			return nil, err
		}
		zr.Multistream(false)
		return io.NopCloser(zr), nil
	}},
	{"lz4", "\x02\x21\x4c\x18", func(r io.Reader) (io.ReadCloser, error) {
		return io.NopCloser(newLZ4Legacy(r)), nil
	}},
	{"zstd", "\x28\xb5\x2f\xfd", func(r io.Reader) (io.ReadCloser, error) {
		zr, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdMaxWindow))
		if err != nil {
			return nil, err
		}
		return zr.IOReadCloser(), nil
	}},
}

// Bounds on the memory a stream can make a decompressor take. xz_wrap.sh uses a
// 32 MiB dictionary (128 MiB since 6.7), zstd -22 --ultra a 128 MiB window.
const (
	xzMaxDict     = 128 << 20
	zstdMaxWindow = 128 << 20
)

// formats that are known by their magic but cannot be read.
var unreadable = map[string]string{
	"\x89LZO":          "lzo",
	"\x5d\x00\x00":     "lzma",
	"\x04\x22\x4d\x18": "lz4 (frame format)",
}

// detect returns the compression of data that starts with head.
func detect(head []byte) (*compression, error) {
	for i, c := range compressions {
		if bytes.HasPrefix(head, []byte(c.magic)) {
			return &compressions[i], nil
		}
	}
	for magic, name := range unreadable {
		if bytes.HasPrefix(head, []byte(magic)) {
			return nil, fmt.Errorf("compressed with %s, which duplex cannot read", name)
		}
	}
	return nil, errUnknownCompression
}

var (
	errUnknownCompression = errors.New("unknown compression")
	errTooLarge           = errors.New("decompresses to more than a kernel can have")
)

// decompress writes the decompressed kernel to w and returns its size. The payload of a bzImage ends
// with the size of the decompressed kernel, 4 bytes little endian (the size_append
// of scripts/Makefile.lib; gzip's own trailer has the same shape): output of any
// other size is an error.
func decompress(w io.Writer, payload []byte) (int64, error) {
	c, err := detect(payload)
	if err != nil {
		return 0, err
	}
	if len(payload) < len(c.magic)+4 {
		return 0, io.ErrUnexpectedEOF
	}
	data, want := payload, int64(binary.LittleEndian.Uint32(payload[len(payload)-4:]))
	if c.name != "gzip" {
		data = payload[:len(payload)-4]
	}
	if want > maxImage {
		return 0, errTooLarge
	}
	r, err := c.open(bytes.NewReader(data))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	defer func() { _ = r.Close() }()
	got, err := io.Copy(w, io.LimitReader(r, want+1))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	if got != want {
		return 0, fmt.Errorf("%s: the payload says %d bytes, but has at least %d", c.name, want, got)
	}
	return got, nil
}

// lz4Legacy reads the "legacy frame" of lz4(1) -l: the magic, then blocks, each
// with its compressed size before it, that decompress to at most 8 MiB.
type lz4Legacy struct {
	r       io.Reader
	started bool
	in, out []byte
	rest    []byte // of out, not read yet
}

const lz4Block = 8 << 20

func newLZ4Legacy(r io.Reader) *lz4Legacy { return &lz4Legacy{r: r} }

func (l *lz4Legacy) Read(p []byte) (int, error) {
	if !l.started {
		var magic [4]byte
		if _, err := io.ReadFull(l.r, magic[:]); err != nil {
			return 0, err
		}
		l.started, l.out = true, make([]byte, lz4Block)
	}
	for len(l.rest) == 0 {
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func (l *lz4Legacy) next() error {
	var size [4]byte
	if _, err := io.ReadFull(l.r, size[:]); err != nil {
		return err // io.EOF at a block's start is the end
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n == 0 || n > uint32(lz4.CompressBlockBound(lz4Block)) {
		return fmt.Errorf("block of %d bytes is out of range", n)
	}
	if cap(l.in) < int(n) {
		l.in = make([]byte, n)
	}
	l.in = l.in[:n]
	if _, err := io.ReadFull(l.r, l.in); err != nil {
		return fmt.Errorf("truncated block: %w", err)
	}
	got, err := lz4.UncompressBlock(l.in, l.out)
	if err != nil {
		return err
	}
	l.rest = l.out[:got]
	return nil
}
