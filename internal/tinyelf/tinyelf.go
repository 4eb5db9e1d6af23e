// Package tinyelf writes static programs of a few instructions, for tests and
// benchmarks of what starts programs.
package tinyelf

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// Exit returns the instructions that end a process with that status.
func Exit(status byte) []byte {
	// mov $status,%edi; mov $231,%eax (exit_group); syscall
	return []byte{0xbf, status, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05}
}

// Program returns code as an executable for x86-64 that is loaded at base, a
// multiple of the page size.
func Program(base uint64, code []byte) []byte {
	const offset = 64 + 56
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Entry: base + offset, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	size := offset + uint64(len(code))
	p := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Filesz: size, Memsz: size, Align: 4096}
	var b bytes.Buffer
	for _, v := range []any{&h, &p, code} {
		_ = binary.Write(&b, binary.LittleEndian, v) // fixed sizes, into memory
	}
	return b.Bytes()
}
