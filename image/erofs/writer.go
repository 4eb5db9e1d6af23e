package erofs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

const (
	blockSize = 4096
	// maxBlocks bounds the image: block addresses are 32 bits wide.
	maxBlocks = math.MaxUint32
	// bufferSize is how much Add reads at a time, a multiple of blockSize.
	bufferSize = 1 << 20
)

var zeroBlock [blockSize]byte

// ErrTooBig reports content beyond a limit.
var ErrTooBig = errors.New("too big")

// Writer writes one image into a file. It is not safe for concurrent use.
// After an error the file is worthless.
type Writer struct {
	out   *os.File
	next  uint32 // first block not yet used
	buf   []byte
	small *spool // nil until a small file is added
}

// NewWriter returns a Writer into out, a new and empty regular file, which the
// caller closes (and removes if anything fails). The Writer is closed with
// Close, whether or not Finish was called.
func NewWriter(out *os.File) *Writer {
	return &Writer{out: out, next: 1, buf: make([]byte, bufferSize)}
}

// Close frees what the Writer holds, not the file it writes. It is idempotent.
func (w *Writer) Close() {
	w.small.close()
	w.small = nil
}

// Add copies r to its end into the image and returns where it is. More than
// limit bytes are ErrTooBig.
func (w *Writer) Add(ctx context.Context, r io.Reader, limit int64) (Data, error) {
	n, err := fill(r, w.buf[:maxSmall+1])
	switch {
	case int64(n) > limit:
		return Data{}, fmt.Errorf("more than %d bytes: %w", limit, ErrTooBig)
	case errors.Is(err, io.EOF) && n <= maxSmall:
		return w.addSmall(w.buf[:n])
	case err != nil && !errors.Is(err, io.EOF):
		return Data{}, err
	}
	return w.addBlocks(ctx, r, n, limit)
}

func (w *Writer) addSmall(p []byte) (Data, error) {
	if len(p) == 0 {
		return Data{}, nil
	}
	if w.small == nil {
		var err error
		if w.small, err = openSpool(w.out.Name()); err != nil {
			return Data{}, err
		}
	}
	at, err := w.small.add(p)
	return Data{at: at, size: int64(len(p)), small: true}, err
}

// addBlocks copies r to blocks of its own, after the first have bytes of it,
// which are in w.buf.
func (w *Writer) addBlocks(ctx context.Context, r io.Reader, have int, limit int64) (Data, error) {
	d := Data{at: int64(w.next) * blockSize}
	for {
		if err := ctx.Err(); err != nil {
			return Data{}, err
		}
		n, err := fill(r, w.buf[have:])
		n, have = n+have, 0
		if d.size += int64(n); d.size > limit {
			return Data{}, fmt.Errorf("more than %d bytes: %w", limit, ErrTooBig)
		}
		if werr := w.writeBlocks(w.buf[:n]); werr != nil {
			return Data{}, werr
		}
		if errors.Is(err, io.EOF) {
			return d, nil
		}
		if err != nil {
			return Data{}, err
		}
	}
}

// addFile is Add for the first size bytes of a file of the host, whose holes
// are not even read: a sparse file of a terabyte takes no time. A file that
// ends early is ErrChanged.
func (w *Writer) addFile(ctx context.Context, f *os.File, size int64) (Data, error) {
	if size <= maxSmall {
		d, err := w.Add(ctx, f, size)
		if errors.Is(err, ErrTooBig) || err == nil && d.size != size {
			err = ErrChanged
		}
		return d, err
	}
	first := w.next
	if blocks(size) > maxBlocks-uint64(w.next) {
		return Data{}, tooManyBlocks()
	}
	for at := int64(0); at < size; {
		start, end, err := extent(f, at, size)
		if err != nil {
			return Data{}, err
		}
		w.next = first + uint32(start/blockSize)
		part, err := w.addBlocks(ctx, io.NewSectionReader(f, start, end-start), 0, end-start)
		if err != nil {
			return Data{}, err
		}
		if part.size != end-start {
			return Data{}, ErrChanged
		}
		at = end
	}
	w.next = first + uint32(blocks(size))
	return Data{at: int64(first) * blockSize, size: size}, nil
}

// extent returns the first part of f, in whole blocks, from byte at on that is
// no hole; start == end == size when there is none. A file system that knows no
// holes has one extent.
func extent(f *os.File, at, size int64) (start, end int64, err error) {
	start, err = f.Seek(at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO), err == nil && start >= size:
		return size, size, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTSUP):
		return at, size, nil
	case err != nil:
		return 0, 0, err
	}
	if end, err = f.Seek(start, unix.SEEK_HOLE); err != nil {
		return 0, 0, err
	}
	return start / blockSize * blockSize, min((end+blockSize-1)/blockSize*blockSize, size), nil
}

func tooManyBlocks() error {
	return fmt.Errorf("image: more than %d blocks: %w", uint32(maxBlocks), ErrTooBig)
}

// Discard gives back the space of contents that no Node will use. The blocks
// stay part of the image's address space but cost nothing on the host.
func (w *Writer) Discard(d Data) {
	if d.size == 0 || d.small {
		return
	}
	length := int64(blocks(d.size)) * blockSize
	// A file system without holes keeps the bytes: more space, same image.
	_ = unix.Fallocate(int(w.out.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
		d.at, length)
}

// fill reads until p is full or r ends or fails. Unlike io.ReadFull it tells a
// source's own io.ErrUnexpectedEOF (a truncated archive) from its end.
func fill(r io.Reader, p []byte) (int, error) {
	var n int
	for n < len(p) {
		m, err := r.Read(p[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// writeBlocks puts p, padded with zeros to whole blocks, at the next free
// blocks. Only the last call for one file may have a len(p) that is not a
// multiple of the block size. Blocks of zeros are skipped and become holes.
func (w *Writer) writeBlocks(p []byte) error {
	count := blocks(int64(len(p)))
	if count > maxBlocks-uint64(w.next) {
		return tooManyBlocks()
	}
	start := int64(w.next) * blockSize
	w.next += uint32(count)
	for at := 0; at < len(p); {
		end := at
		for end < len(p) && !isZero(p[end:min(end+blockSize, len(p))]) {
			end = min(end+blockSize, len(p))
		}
		if end > at {
			if _, err := w.out.WriteAt(p[at:end], start+int64(at)); err != nil {
				return err // an *os.PathError, says it all
			}
		}
		at = end + blockSize // p[end:] starts with a block of zeros or is empty
	}
	return nil
}

func isZero(p []byte) bool { return bytes.Equal(p, zeroBlock[:len(p)]) }

func blocks(size int64) uint64 { return (uint64(size) + blockSize - 1) / blockSize }
