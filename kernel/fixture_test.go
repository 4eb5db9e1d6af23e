package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

const fixtureVersion = "6.6.6-test (someone@somewhere) #1 SMP"

// smallELF is an ELF64 executable that looks like a kernel to this package: a
// segment with x86 calls (which the BCJ filter of xz rewrites), the banner and
// extra, and a PVH note. testdata/smallelf.* were made from smallELF(nil) by
//
//	xz --check=crc32 --x86 --lzma2=dict=1MiB
//	bzip2 -9
func smallELF(extra []byte) []byte {
	var text []byte
	for i := range 4096 {
		text = append(text, 0x55, 0xe8, byte(i), byte(i>>8), 0, 0, 0xc3)
	}
	text = append(text, "\x00Linux version %s (%s)\x00Linux version "+fixtureVersion+"\n\x00"...)
	text = append(text, extra...)
	note := pvhNoteBytes(0x1000850)

	const headers = 64 + 2*56
	le := binary.LittleEndian
	prog := func(kind elf.ProgType, off, size int) []byte {
		p := make([]byte, 56)
		le.PutUint32(p, uint32(kind))
		le.PutUint64(p[8:], uint64(off))
		le.PutUint64(p[24:], 0x1000000) // physical
		le.PutUint64(p[32:], uint64(size))
		le.PutUint64(p[40:], uint64(size))
		return p
	}
	h := make([]byte, 64)
	copy(h, elf.ELFMAG+"\x02\x01\x01")
	le.PutUint16(h[16:], uint16(elf.ET_EXEC))
	le.PutUint16(h[18:], uint16(elf.EM_X86_64))
	le.PutUint32(h[20:], 1)
	le.PutUint64(h[24:], 0x1000000) // entry
	le.PutUint64(h[32:], 64)        // program headers
	le.PutUint16(h[52:], 64)
	le.PutUint16(h[54:], 56)
	le.PutUint16(h[56:], 2)
	le.PutUint16(h[58:], 64)
	out := append(h, prog(elf.PT_LOAD, headers, len(text))...)
	out = append(out, prog(elf.PT_NOTE, headers+len(text), len(note))...)
	return append(append(out, text...), note...)
}

func pvhNoteBytes(entry uint32) []byte {
	le := binary.LittleEndian
	other := append(le.AppendUint32(nil, 4), 2, 0, 0, 0, 7, 0, 0, 0, 'A', 'B', 'C', 0, 1, 2, 0, 0)
	n := le.AppendUint32(other, 4)
	n = le.AppendUint32(n, 4)
	n = le.AppendUint32(n, pvhNote)
	n = append(n, pvhOwner...)
	return le.AppendUint32(n, entry)
}

// bzImageOf puts a compressed payload behind a boot header, as the kernel's
// arch/x86/boot does: setup code, then protected-mode code with the payload in it.
func bzImageOf(payload []byte) []byte {
	const sects, codeBefore = 3, 100
	le := binary.LittleEndian
	img := make([]byte, (sects+1)*sectorSize+codeBefore)
	img[offSetupSects] = sects
	le.PutUint16(img[offBootFlag:], bootFlag)
	copy(img[offMagic:], magicHdrS)
	le.PutUint16(img[offProtocol:], 0x20f)
	le.PutUint16(img[offXLoadFlags:], xlfKernel64)
	le.PutUint16(img[offKernelVersion:], 0x300)
	copy(img[0x500:], fixtureVersion+"\x00")
	le.PutUint32(img[offPayloadOffset:], codeBefore)
	le.PutUint32(img[offPayloadLength:], uint32(len(payload)))
	return append(append(img, payload...), bytes.Repeat([]byte{0xcc}, 64)...)
}

// sized appends the size of the decompressed kernel, as size_append does.
func sized(packed []byte, size int) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(packed), uint32(size))
}

func writeTemp(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
