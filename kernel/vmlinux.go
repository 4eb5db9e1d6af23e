package kernel

import (
	"bufio"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/duplex-run/duplex/internal/hostdir"
)

// Vmlinux returns the path of the uncompressed ELF kernel: the image itself when
// it is one, else a file that is extracted from the bzImage once and cached by
// the hash of the image. Entering it directly saves the guest the
// decompression, and with it KASLR, which is that decompressor's work: the ELF
// file runs where it is linked and its relocations, appended to it, are unused.
func (k *Kernel) Vmlinux(ctx context.Context) (string, error) {
	f, err := os.Open(k.Image)
	if err != nil {
		return "", fmt.Errorf("open kernel: %w", err)
	}
	defer func() { _ = f.Close() }()
	size, err := regularSize(f)
	if err != nil {
		return "", fmt.Errorf("kernel %s: %w", k.Image, err)
	}
	if checkELF(f) == nil {
		return k.Image, nil
	}
	img, err := parseBzImage(f, size)
	if err != nil {
		return "", fmt.Errorf("kernel %s: %w", k.Image, err)
	}
	id, err := k.ID(ctx)
	if err != nil {
		return "", err
	}
	path, err := hostdir.Cache("vmlinux", id+".elf")
	if err != nil {
		return "", err
	}
	err = hostdir.Make(ctx, path, func(out *os.File) error { return extract(out, f, img) })
	if err != nil {
		return "", fmt.Errorf("extract vmlinux from %s: %w", k.Image, err)
	}
	return path, nil
}

// extract writes the ELF kernel that img holds to out and checks that it is one.
func extract(out *os.File, r io.ReaderAt, img *bzImage) error {
	payload := make([]byte, img.length) // bounded by the file's size
	if _, err := r.ReadAt(payload, img.payload); err != nil {
		return fmt.Errorf("read payload: %w", err)
	}
	w := bufio.NewWriterSize(out, 1<<20)
	if err := decompress(w, payload); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return checkELF(out)
}

// checkELF returns nil when r is an ELF64 executable for x86-64 that has
// something to load.
func checkELF(r io.ReaderAt) error {
	f, err := elf.NewFile(r)
	if err != nil {
		return err
	}
	switch {
	case f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64:
		return fmt.Errorf("%s for %s, want %s for %s", f.Class, f.Machine, elf.ELFCLASS64, elf.EM_X86_64)
	case f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN:
		return fmt.Errorf("%s, want an executable", f.Type)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Filesz > 0 {
			return nil
		}
	}
	return errors.New("no segment to load")
}

// regularSize returns the size of a regular file of plausible size.
func regularSize(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("not a regular file")
	}
	if info.Size() > maxImage {
		return 0, fmt.Errorf("%d bytes is more than a kernel can have (%d)", info.Size(), maxImage)
	}
	return info.Size(), nil
}
