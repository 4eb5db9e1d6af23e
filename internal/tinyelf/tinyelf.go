// Package tinyelf writes static programs of a few instructions, for the first
// process of a container, and for tests and benchmarks of what starts programs.
//
// It does without package elf, which programs that have to start quickly should not
// link.
package tinyelf

import "encoding/binary"

// Exit returns the instructions that end a process with that status.
func Exit(status byte) []byte {
	// mov $status,%edi; mov $231,%eax (exit_group); syscall
	return []byte{0xbf, status, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05}
}

// Sizes of the headers (elf(5)).
const (
	fileHeader    = 64
	programHeader = 56
)

// Program returns code as an executable for x86-64 that is loaded at base, a
// multiple of the page size.
func Program(base uint64, code []byte) []byte {
	const offset = fileHeader + programHeader
	size := offset + uint64(len(code))
	le := binary.LittleEndian
	b := make([]byte, 0, size)
	b = append(b, 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0) // 64 bits, little-endian
	for _, v := range []uint16{2, 62} {                                    // ET_EXEC, EM_X86_64
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1)                                  // EV_CURRENT
	for _, v := range []uint64{base + offset, fileHeader, 0} { // entry, program headers, sections
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, 0) // flags
	for _, v := range []uint16{fileHeader, programHeader, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	for _, v := range []uint32{1, 4 | 1} { // PT_LOAD, readable and executable
		b = le.AppendUint32(b, v)
	}
	for _, v := range []uint64{0, base, 0, size, size, 4096} { // offset, address, physical one, sizes, alignment
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}
