package initramfs

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"testing"
)

func TestUnsigned(t *testing.T) {
	signed := func(n uint32, size int) []byte {
		m := append([]byte("module"), make([]byte, size+8)...)
		return append(binary.BigEndian.AppendUint32(m, n), signatureMagic...)
	}
	for name, tt := range map[string]struct {
		in   []byte
		want string
	}{
		"signed":          {signed(5, 5), "module"},
		"unsigned":        {[]byte("module"), "module"},
		"length too long": {signed(1<<31, 5), string(signed(1<<31, 5))},
		"only the magic":  {[]byte(signatureMagic), signatureMagic},
		"empty":           {nil, ""},
	} {
		if got := unsigned(tt.in); string(got) != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// A file with a section of functions that can be traced has none afterwards, and is
// the same otherwise; what is no ELF file stays as it is.
func TestUntraced(t *testing.T) {
	const names = "\x00.rela__mcount_loc\x00.shstrtab\x00"
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	h.Shoff = 64 + uint64(len(names))
	var b bytes.Buffer
	for _, v := range []any{&h, []byte(names), &elf.Section64{},
		&elf.Section64{Name: 6, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: 8},
		&elf.Section64{Name: 19, Type: uint32(elf.SHT_STRTAB), Off: 64, Size: uint64(len(names))}} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	section := func(module []byte) (string, int) {
		f, err := elf.NewFile(bytes.NewReader(module))
		if err != nil {
			t.Fatal(err)
		}
		return f.Sections[1].Name, len(f.Sections)
	}
	if name, n := section(b.Bytes()); name != "__mcount_loc" || n != 3 {
		t.Fatalf("the test's file has a section %q", name)
	}
	want := bytes.Replace(b.Bytes(), []byte("__mcount_loc"), []byte(".duplex.none"), 1)
	if got := prepare(bytes.Clone(b.Bytes()), true); !bytes.Equal(got, b.Bytes()) {
		t.Error("a kernel that wants signatures gets another file")
	}
	got := prepare(bytes.Clone(b.Bytes()), false)
	if name, _ := section(got); name != ".duplex.none" || !bytes.Equal(got, want) {
		t.Errorf("section %q", name)
	}
	for _, bad := range [][]byte{nil, []byte("no ELF"), b.Bytes()[:70]} {
		if got := untraced(bytes.Clone(bad)); !bytes.Equal(got, bad) {
			t.Errorf("%q became %q", bad, got)
		}
	}
}
