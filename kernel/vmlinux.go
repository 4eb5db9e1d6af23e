package kernel

import (
	"bufio"
	"context"
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

func extractCached(ctx context.Context, f *os.File) (string, error) {
	id, err := contentID(ctx, f)
	if err != nil {
		return "", err
	}
	path, err := hostdir.Cache("vmlinux", id+".elf")
	if err != nil {
		return "", err
	}
	return path, hostdir.Make(ctx, path, func(out *os.File) error {
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
	return checkELF(out, size)
}
