package bootbench

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// bareCode is the program of Bare (System V ABI for x86-64, Linux's numbers of
// system calls).
var bareCode = []byte{
	0xb8, 1, 0, 0, 0, // mov $1, %eax: write
	0xbf, 1, 0, 0, 0, // mov $1, %edi: standard output, which is the console
	0x48, 0x8d, 0x35, 63, 0, 0, 0, // lea 63(%rip), %rsi: the last two bytes
	0xba, 2, 0, 0, 0, // mov $2, %edx
	0x0f, 0x05, // syscall
	0xb8, 35, 0, 0, 0, // mov $35, %eax: nanosleep, so that the host's CPU is free to hear it
	0x48, 0x8d, 0x3d, 28, 0, 0, 0, // lea 28(%rip), %rdi: how long
	0x31, 0xf6, // xor %esi, %esi
	0x0f, 0x05, // syscall
	0xb8, 169, 0, 0, 0, // mov $169, %eax: reboot
	0xbf, 0xad, 0xde, 0xe1, 0xfe, // mov $0xfee1dead, %edi
	0xbe, 0x69, 0x19, 0x12, 0x28, // mov $0x28121969, %esi
	0xba, 0xdc, 0xfe, 0x21, 0x43, // mov $0x4321fedc, %edx: power off
	0x0f, 0x05, // syscall
	0xeb, 0xfe, // jmp itself
	0, 0, 0, 0, 0, 0, 0, 0, // seconds
	0x00, 0x2d, 0x31, 0x01, 0, 0, 0, 0, // 20,000,000 nanoseconds
	Ready, '\n',
}

// BareInit is an executable file that writes a line with Ready to its standard
// output (duplex hands the serial port's output on by the line), sleeps
// for 20 ms and powers the machine off.
func BareInit() []byte {
	const base, headers = 0x400000, 64 + 56
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Entry: base + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	size := uint64(headers + len(bareCode))
	p := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Filesz: size, Memsz: size, Align: 4096,
	}
	var b bytes.Buffer
	for _, v := range []any{&h, &p, bareCode} {
		_ = binary.Write(&b, binary.LittleEndian, v) // fixed-size values into memory
	}
	return b.Bytes()
}
