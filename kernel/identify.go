package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/workload"
)

// The formats of a kernel image.
const (
	FormatBzImage = "bzImage"
	FormatVmlinux = "vmlinux"
)

// identity is what a kernel image says of itself before it is decompressed.
type identity struct {
	format  string
	size    int64
	time    time.Time // of the last change
	version string    // "6.1.0-56-cloud-amd64 (builder@host) ..."; may be empty
	bz      *bzImage  // of a bzImage
}

// release is the first word of the version: what `uname -r` prints.
func (id identity) release() string {
	release, _, _ := strings.Cut(id.version, " ")
	if strings.ContainsRune(release, '/') {
		return "" // it becomes part of paths
	}
	return release
}

// identify reads the headers of the kernel image f. Errors are *workload.Error.
func identify(f *os.File) (identity, error) {
	op := "read kernel " + f.Name()
	size, err := regularSize(f)
	if err != nil {
		return identity{}, &workload.Error{Op: op, Err: err}
	}
	info, err := f.Stat()
	if err != nil {
		return identity{}, &workload.Error{Op: op, Err: err}
	}
	if isELF(f) {
		if err := checkELF(f, size); err != nil {
			return identity{}, &workload.Error{Op: op, Err: fmt.Errorf("vmlinux: %w", err), Remedy: remedyImage}
		}
		version, err := bannerVersion(f, size)
		if err == nil && version == "" {
			err = errNoBanner
		}
		if err != nil {
			return identity{}, &workload.Error{Op: op, Err: err, Remedy: remedyImage}
		}
		return identity{format: FormatVmlinux, size: size, time: info.ModTime(), version: version}, nil
	}
	img, err := parseBzImage(f, size)
	if errors.Is(err, errNotBzImage) {
		return identity{}, &workload.Error{Op: op, Err: errors.New("neither a bzImage nor an ELF vmlinux"), Remedy: remedyImage}
	}
	if err != nil {
		return identity{}, &workload.Error{Op: op, Err: fmt.Errorf("bzImage: %w", err), Remedy: remedyImage}
	}
	return identity{format: FormatBzImage, size: size, time: info.ModTime(), version: img.version, bz: img}, nil
}

const remedyImage = "give a bzImage (/boot/vmlinuz-*) or an uncompressed vmlinux for x86-64"

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

// maxProgs bounds the work that program headers make; Linux has five.
const maxProgs = 64

func isELF(r io.ReaderAt) bool {
	var magic [4]byte
	_, err := r.ReadAt(magic[:], 0)
	return err == nil && string(magic[:]) == elf.ELFMAG
}

// checkELF returns nil when r is an ELF64 executable for x86-64 with something
// to load, all of it within the file's size bytes.
func checkELF(r io.ReaderAt, size int64) error {
	f, err := elf.NewFile(r)
	if err != nil {
		return err
	}
	switch {
	case f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64:
		return fmt.Errorf("%s for %s, want %s for %s", f.Class, f.Machine, elf.ELFCLASS64, elf.EM_X86_64)
	case f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN:
		return fmt.Errorf("%s, want an executable", f.Type)
	case len(f.Progs) > maxProgs:
		return fmt.Errorf("%d program headers, a kernel has a handful", len(f.Progs))
	}
	loads := false
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if p.Off > uint64(size) || p.Filesz > uint64(size)-p.Off {
			return fmt.Errorf("truncated: a segment is %d bytes at offset %d, the file has %d", p.Filesz, p.Off, size)
		}
		loads = loads || p.Filesz > 0
	}
	if !loads {
		return errors.New("no segment to load")
	}
	return nil
}

// banner starts linux_banner (init/version.c); linux_proc_banner, the format of
// /proc/version, has "%s" where this has the release.
const banner = "Linux version "

var errNoBanner = errors.New("an ELF executable, but no Linux kernel: no \"" + banner + "\" in it")

// bannerVersion finds the version in an uncompressed kernel, "" when it is not
// there.
func bannerVersion(r io.ReaderAt, size int64) (string, error) {
	var version string
	err := scan(r, size, banner, 512, func(_ int64, after []byte) bool {
		line, _, _ := bytes.Cut(after, []byte{0})
		line, _, _ = bytes.Cut(line, []byte{'\n'})
		if len(line) == 0 || line[0] < '0' || line[0] > '9' || !printable(line) {
			return false
		}
		version = string(line)
		return true
	})
	return version, err
}

// scan looks for needle in the size bytes of r and calls found with the offset
// behind each and up to window bytes from there, until found returns true.
func scan(r io.ReaderAt, size int64, needle string, window int, found func(at int64, after []byte) bool) error {
	const step = 1 << 20
	buf := make([]byte, step+len(needle)+window)
	for at := int64(0); at < size; at += step {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		chunk := buf[:n]
		for from := 0; ; {
			i := bytes.Index(chunk[from:], []byte(needle))
			if i < 0 || from+i >= step {
				break
			}
			from += i + len(needle)
			if found(at+int64(from), chunk[from:min(n, from+window)]) {
				return nil
			}
		}
	}
	return nil
}

// contentID returns the SHA-256 of the file f in hex. Hashing a kernel takes
// longer than entering it, so the cache remembers the hash for as long as inode,
// size and times of the file stay.
func contentID(ctx context.Context, f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", errors.New("no inode known")
	}
	stat := fmt.Sprintf("%d %d %d %v %v", st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim)
	key := sha256.Sum256([]byte(stat))
	path, err := hostdir.Cache("ids", hex.EncodeToString(key[:]))
	if err != nil {
		return "", err
	}
	err = hostdir.Make(ctx, path, func(out *os.File) error {
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(f, 0, st.Size)); err != nil {
			return err
		}
		_, err := out.WriteString(hex.EncodeToString(h.Sum(nil)))
		return err
	})
	if err != nil {
		return "", err
	}
	id, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if len(id) != 2*sha256.Size || strings.Trim(string(id), "0123456789abcdef") != "" {
		return "", fmt.Errorf("%s holds no SHA-256", path)
	}
	return string(id), nil
}
