package boot

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/duplex-run/duplex/vmm/memory"
)

// Format is the kind of kernel file.
type Format string

// The formats that Parse knows.
const (
	BzImage Format = "bzImage"
	Vmlinux Format = "vmlinux"
)

// ErrNotKernel reports a file that is neither a bzImage nor an x86-64 vmlinux
// that the 64-bit boot protocol can enter.
var ErrNotKernel = errors.New("not a bootable x86-64 Linux kernel")

const (
	lowMemoryEnd memory.GPA = 1 << 20
	pageSize                = 4096
	// identityEnd is the end of the memory that the page tables cover and
	// that the kernel must lie in.
	identityEnd = 4 << 30
	// maxSegments bounds the loadable segments of a vmlinux; Linux has 4 or 5.
	maxSegments = 64
)

// segment is a piece of the file and where it goes.
type segment struct {
	gpa              memory.GPA
	offset           int64  // in the file
	fileSize, memory uint64 // bytes; memory >= fileSize, the rest is zero
}

// Kernel is a parsed kernel: where its pieces go and where it is entered.
type Kernel struct {
	Format Format
	Entry  memory.GPA

	segments   []segment
	end        memory.GPA  // first address the kernel does not need while it starts
	header     setupHeader // as the file has it, or made up for a vmlinux
	maxCmdline int         // bytes without the final NUL
	initrdMax  memory.GPA  // last address an initrd may occupy
}

// Parse reads the headers of the kernel in r, which holds size bytes. Errors
// that say something about the file wrap ErrNotKernel.
func Parse(r io.ReaderAt, size int64) (*Kernel, error) {
	var magic [4]byte
	if size < int64(len(magic)) {
		return nil, fmt.Errorf("%w: %d bytes is too short", ErrNotKernel, size)
	}
	if _, err := r.ReadAt(magic[:], 0); err != nil {
		return nil, fmt.Errorf("read the kernel: %w", err)
	}
	if string(magic[:]) == elf.ELFMAG {
		return parseELF(r, size)
	}
	return parseBzImage(r, size)
}

// elfHeader is Elf64_Ehdr, elfProgram Elf64_Phdr: debug/elf would also read the
// section headers, which need not be there.
type elfHeader = elf.Header64

func parseELF(r io.ReaderAt, size int64) (*Kernel, error) {
	var h elfHeader
	if err := readStruct(r, size, 0, &h); err != nil {
		return nil, err
	}
	switch {
	case elf.Class(h.Ident[elf.EI_CLASS]) != elf.ELFCLASS64,
		elf.Data(h.Ident[elf.EI_DATA]) != elf.ELFDATA2LSB,
		elf.Machine(h.Machine) != elf.EM_X86_64:
		return nil, fmt.Errorf("%w: an ELF file for another machine", ErrNotKernel)
	case elf.Type(h.Type) != elf.ET_EXEC:
		return nil, fmt.Errorf("%w: an ELF file of type %v, not an executable", ErrNotKernel, elf.Type(h.Type))
	case h.Phnum == 0 || h.Phnum > maxSegments || h.Phentsize != 56:
		return nil, fmt.Errorf("%w: %d program headers of %d bytes", ErrNotKernel, h.Phnum, h.Phentsize)
	case h.Phoff > uint64(size):
		return nil, fmt.Errorf("%w: program headers lie outside the file", ErrNotKernel)
	}
	k := &Kernel{
		Format: Vmlinux, Entry: memory.GPA(h.Entry), header: vmlinuxHeader(),
		maxCmdline: 2047, initrdMax: 0x7fffffff,
	}
	for i := range int64(h.Phnum) {
		var p elf.Prog64
		if err := readStruct(r, size, int64(h.Phoff)+i*56, &p); err != nil {
			return nil, err
		}
		if elf.ProgType(p.Type) != elf.PT_LOAD || p.Memsz == 0 {
			continue
		}
		if err := k.addSegment(p, uint64(size)); err != nil {
			return nil, err
		}
	}
	if !k.entryLoaded() {
		return nil, fmt.Errorf("%w: entry point %#x lies in no loaded segment", ErrNotKernel, h.Entry)
	}
	return k, nil
}

func (k *Kernel) addSegment(p elf.Prog64, size uint64) error {
	switch {
	case p.Filesz > p.Memsz || p.Off > size || p.Filesz > size-p.Off:
		return fmt.Errorf("%w: a segment of %d bytes at %d lies outside the file", ErrNotKernel, p.Filesz, p.Off)
	case p.Paddr < uint64(lowMemoryEnd) || p.Paddr >= identityEnd || p.Memsz > identityEnd-p.Paddr:
		return fmt.Errorf("%w: a segment of %d bytes for address %#x, not between 1 MiB and 4 GiB",
			ErrNotKernel, p.Memsz, p.Paddr)
	}
	k.segments = append(k.segments, segment{memory.GPA(p.Paddr), int64(p.Off), p.Filesz, p.Memsz})
	k.end = max(k.end, memory.GPA(p.Paddr+p.Memsz))
	return nil
}

func (k *Kernel) entryLoaded() bool {
	for _, s := range k.segments {
		if k.Entry >= s.gpa && uint64(k.Entry-s.gpa) < s.fileSize {
			return true
		}
	}
	return false
}

// readStruct decodes a little-endian structure at off in a file of size bytes.
func readStruct(r io.ReaderAt, size, off int64, v any) error {
	n := int64(binary.Size(v))
	if off < 0 || off > size || n > size-off {
		return fmt.Errorf("%w: truncated at %d bytes", ErrNotKernel, size)
	}
	if err := binary.Read(io.NewSectionReader(r, off, n), binary.LittleEndian, v); err != nil {
		return fmt.Errorf("read the kernel at %d: %w", off, err)
	}
	return nil
}
