package kernel

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"

	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/workload"
)

// Vmlinux returns the path of the uncompressed ELF kernel: the image itself when
// it is one, else a file that is extracted from the bzImage once and cached by
// the hash of the image. Entering it directly saves the guest the
// decompression, and with it KASLR, which is that decompressor's work: the ELF
// file runs where it is linked and its relocations, appended to it, are unused.
// Errors are *workload.Error.
func (k *Kernel) Vmlinux(ctx context.Context) (string, error) {
	f, err := os.Open(k.Image)
	if err != nil {
		return "", &workload.Error{Op: "open kernel", Err: err}
	}
	defer func() { _ = f.Close() }()
	if isELF(f) {
		return k.Image, nil
	}
	path, err := extractCached(ctx, f)
	if err != nil {
		return "", &workload.Error{Op: "extract vmlinux from " + k.Image, Err: err,
			Remedy: "give the uncompressed vmlinux, or a kernel compressed with gzip, bzip2, xz, lz4 or zstd"}
	}
	return path, nil
}

// extractedSuffix changes when what extract makes of the same image does.
const extractedSuffix = ".2.elf"

// keepExtracted bounds the bytes of cached vmlinux files: a dozen or so.
const keepExtracted = 512 << 20

func extractCached(ctx context.Context, f *os.File) (string, error) {
	id, err := contentID(ctx, f)
	if err != nil {
		return "", err
	}
	path, err := hostdir.Cache("vmlinux", id+extractedSuffix)
	if err != nil {
		return "", err
	}
	return path, hostdir.MakeBounded(ctx, path, keepExtracted, func(out *os.File) error {
		size, err := regularSize(f)
		if err != nil {
			return err
		}
		img, err := parseBzImage(f, size)
		if err != nil {
			return err
		}
		return extract(out, f, img)
	})
}

// extract writes the ELF kernel that img holds to out and checks that it is one.
func extract(out *os.File, r io.ReaderAt, img *bzImage) error {
	payload := make([]byte, img.length) // bounded by the file's size
	if _, err := r.ReadAt(payload, img.payload); err != nil {
		return fmt.Errorf("read payload: %w", err)
	}
	w := bufio.NewWriterSize(out, 1<<20)
	size, err := decompress(w, payload)
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := checkELF(out, size); err != nil {
		return err
	}
	return trimSegments(out)
}

// file is what trimSegments needs of an *os.File.
type file interface {
	io.ReaderAt
	io.WriterAt
}

// trimSegments takes the zeros at the end of each segment out of its size in the
// file. A bzImage's kernel has its .bss as bytes, 12 of 45 MB for Debian's; whoever
// loads the file need not copy what memory holds already (elf(5): p_memsz beyond
// p_filesz "is defined to hold the value 0").
func trimSegments(f file) error {
	e, err := elf.NewFile(f)
	if err != nil {
		return err
	}
	// ELF64 header: e_phoff at 32, e_phentsize at 54; in each entry p_filesz at 32.
	var head [64]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return err
	}
	phoff := int64(e.ByteOrder.Uint64(head[32:]))
	phentsize := int64(e.ByteOrder.Uint16(head[54:]))
	for i, p := range e.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		n, err := trimmedSize(p, int64(p.Filesz))
		if err != nil {
			return err
		}
		var size [8]byte
		e.ByteOrder.PutUint64(size[:], uint64(n))
		if _, err := f.WriteAt(size[:], phoff+int64(i)*phentsize+32); err != nil {
			return err
		}
	}
	return nil
}

// trimmedSize returns the size of the size bytes of r without trailing zeros.
func trimmedSize(r io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for size > 0 {
		chunk := buf[:min(size, int64(len(buf)))]
		if _, err := r.ReadAt(chunk, size-int64(len(chunk))); err != nil {
			return 0, err
		}
		if n := len(bytes.TrimRight(chunk, "\x00")); n > 0 {
			return size - int64(len(chunk)-n), nil
		}
		size -= int64(len(chunk))
	}
	return 0, nil
}
