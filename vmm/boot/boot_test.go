package boot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
)

// testBzImage is a bzImage of 5 sectors of set-up code and 4096 bytes of
// kernel; change may alter its header.
func testBzImage(change func(*setupHeader)) []byte {
	h := setupHeader{
		SetupSects: 4, BootFlag: bootFlag, Magic: headerMagic, Version: 0x20f, LoadFlags: loadFlagHigh,
		XLoadFlags: xloadKernel64, InitrdAddrMax: 0x7fffffff, CmdlineSize: 2047,
		KernelAlignment: 1 << 21, PrefAddress: 1 << 24, InitSize: 1 << 20,
	}
	if change != nil {
		change(&h)
	}
	b := make([]byte, 5*sector+4096)
	if _, err := binary.Encode(b[headerOffset:], binary.LittleEndian, &h); err != nil {
		panic(err)
	}
	copy(b[5*sector:], "protected-mode kernel")
	return b
}

// testVmlinux is an ELF kernel with segments for 0x1000000 (16 bytes of file,
// 4096 of memory) and 0x2000000.
func testVmlinux(change func(*elf.Header64, []elf.Prog64)) []byte {
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Entry: 0x1000004,
		Phoff: 64, Phentsize: 56, Phnum: 3,
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	progs := []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Off: 232, Paddr: 0x1000000, Filesz: 16, Memsz: 4096},
		{Type: uint32(elf.PT_NOTE), Off: 232, Paddr: 0, Filesz: 16, Memsz: 16},
		{Type: uint32(elf.PT_LOAD), Off: 248, Paddr: 0x2000000, Filesz: 8, Memsz: 8},
	}
	if change != nil {
		change(&h, progs)
	}
	var b bytes.Buffer
	for _, v := range []any{&h, progs, []byte("kernel text 16 b8 bytes.")} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func parse(b []byte) (*Kernel, error) { return Parse(bytes.NewReader(b), int64(len(b))) }

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name   string
		file   []byte
		format Format
		entry  memory.GPA
		end    memory.GPA
	}{
		{"bzImage", testBzImage(nil), BzImage, 1<<24 + 0x200, 1<<24 + 1<<20},
		{"old bzImage without a sector count", testBzImage(func(h *setupHeader) { h.SetupSects = 0 }), BzImage, 1<<24 + 0x200, 1<<24 + 1<<20},
		{"bzImage larger than its init_size", testBzImage(func(h *setupHeader) { h.InitSize = 1 }), BzImage, 1<<24 + 0x200, 1<<24 + 4096},
		{"vmlinux", testVmlinux(nil), Vmlinux, 0x1000004, 0x2000008},
	} {
		k, err := parse(c.file)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if k.Format != c.format || k.Entry != c.entry || k.end != c.end {
			t.Errorf("%s: %s, entry %#x, end %#x", c.name, k.Format, k.Entry, k.end)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	bz := func(f func(*setupHeader)) []byte { return testBzImage(f) }
	vm := func(f func(*elf.Header64, []elf.Prog64)) []byte { return testVmlinux(f) }
	for name, file := range map[string][]byte{
		"empty":                      {},
		"three bytes":                []byte("abc"),
		"text":                       []byte(strings.Repeat("text ", 1000)),
		"short bzImage":              testBzImage(nil)[:600],
		"no kernel after set-up":     testBzImage(nil)[:5*sector+0x200],
		"more set-up than file":      bz(func(h *setupHeader) { h.SetupSects = 255 }),
		"no magic":                   bz(func(h *setupHeader) { h.Magic = 0 }),
		"no boot flag":               bz(func(h *setupHeader) { h.BootFlag = 0 }),
		"old protocol":               bz(func(h *setupHeader) { h.Version = 0x20b }),
		"32-bit kernel":              bz(func(h *setupHeader) { h.XLoadFlags = 0 }),
		"zImage":                     bz(func(h *setupHeader) { h.LoadFlags = 0 }),
		"wants low memory":           bz(func(h *setupHeader) { h.PrefAddress = 0x10000 }),
		"wants an odd address":       bz(func(h *setupHeader) { h.PrefAddress = 1<<24 + 1 }),
		"wants memory above 4 GiB":   bz(func(h *setupHeader) { h.PrefAddress = 1 << 32 }),
		"address wraps":              bz(func(h *setupHeader) { h.PrefAddress = math.MaxUint64 &^ 4095 }),
		"wants more than 4 GiB":      bz(func(h *setupHeader) { h.InitSize = math.MaxUint32 }),
		"ELF magic only":             []byte("\x7fELF"),
		"truncated ELF":              testVmlinux(nil)[:100],
		"32-bit ELF":                 vm(func(h *elf.Header64, _ []elf.Prog64) { h.Ident[elf.EI_CLASS] = 1 }),
		"big-endian ELF":             vm(func(h *elf.Header64, _ []elf.Prog64) { h.Ident[elf.EI_DATA] = 2 }),
		"arm64 ELF":                  vm(func(h *elf.Header64, _ []elf.Prog64) { h.Machine = uint16(elf.EM_AARCH64) }),
		"shared object":              vm(func(h *elf.Header64, _ []elf.Prog64) { h.Type = uint16(elf.ET_DYN) }),
		"no segments":                vm(func(h *elf.Header64, _ []elf.Prog64) { h.Phnum = 0 }),
		"many segments":              vm(func(h *elf.Header64, _ []elf.Prog64) { h.Phnum = 65535 }),
		"odd segment headers":        vm(func(h *elf.Header64, _ []elf.Prog64) { h.Phentsize = 8 }),
		"segment headers outside":    vm(func(h *elf.Header64, _ []elf.Prog64) { h.Phoff = 300 }),
		"segment headers far away":   vm(func(h *elf.Header64, _ []elf.Prog64) { h.Phoff = math.MaxUint64 }),
		"entry outside":              vm(func(h *elf.Header64, _ []elf.Prog64) { h.Entry = 0x3000000 }),
		"entry in zeroed memory":     vm(func(h *elf.Header64, _ []elf.Prog64) { h.Entry = 0x1000010 }),
		"entry in low memory":        vm(func(h *elf.Header64, _ []elf.Prog64) { h.Entry = 0 }),
		"segment larger than memory": vm(func(_ *elf.Header64, p []elf.Prog64) { p[0].Memsz = 15 }),
		"segment outside the file":   vm(func(_ *elf.Header64, p []elf.Prog64) { p[0].Off = 1 << 20 }),
		"segment past the file":      vm(func(_ *elf.Header64, p []elf.Prog64) { p[0].Off = 250 }),
		"segment offset wraps":       vm(func(_ *elf.Header64, p []elf.Prog64) { p[0].Off = math.MaxUint64 }),
		"segment in low memory":      vm(func(_ *elf.Header64, p []elf.Prog64) { p[0].Paddr = 0x7000 }),
		"segment above 4 GiB":        vm(func(_ *elf.Header64, p []elf.Prog64) { p[0].Paddr = 1 << 32 }),
		"segment of 2^64 bytes":      vm(func(_ *elf.Header64, p []elf.Prog64) { p[0].Memsz = math.MaxUint64 }),
	} {
		if k, err := parse(file); !errors.Is(err, ErrNotKernel) {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
	}
}

func TestPlan(t *testing.T) {
	const mib = 1 << 20
	bz, err := parse(testBzImage(nil)) // [16 MiB, 17 MiB)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		in     Input
		initrd memory.GPA
		err    error
	}{
		{"kernel alone, just fits", Input{Memory: 17 * mib}, 0, nil},
		{"kernel alone, a page too little", Input{Memory: 17*mib - 4096}, 0, ErrMemoryTooSmall},
		{"1 MiB", Input{Memory: mib}, 0, ErrMemoryTooSmall},
		{"initrd at the end", Input{Memory: 64 * mib, InitrdSize: mib}, 63 * mib, nil},
		{"initrd of odd size", Input{Memory: 64 * mib, InitrdSize: mib + 1}, 63*mib - 4096, nil},
		{"initrd just fits", Input{Memory: 64 * mib, InitrdSize: 47 * mib}, 17 * mib, nil},
		{"initrd a byte too large", Input{Memory: 64 * mib, InitrdSize: 47*mib + 1}, 0, ErrMemoryTooSmall},
		{"initrd larger than memory", Input{Memory: 64 * mib, InitrdSize: 1 << 40}, 0, ErrMemoryTooSmall},
		{"initrd of all sizes", Input{Memory: 64 * mib, InitrdSize: math.MaxUint64}, 0, ErrMemoryTooSmall},
		{"initrd below initrd_addr_max", Input{Memory: 4 << 30, InitrdSize: mib}, 0x7fffffff + 1 - mib, nil},
		{"command line just fits", Input{Memory: 64 * mib, Cmdline: strings.Repeat("x", 2047)}, 0, nil},
		{"command line too long", Input{Memory: 64 * mib, Cmdline: strings.Repeat("x", 2048)}, 0, ErrCmdline},
		{"command line with a NUL", Input{Memory: 64 * mib, Cmdline: "a\x00b"}, 0, ErrCmdline},
	} {
		l, err := bz.Plan(c.in)
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %v", c.name, err)
		} else if err == nil && l.initrd != c.initrd {
			t.Errorf("%s: initrd at %#x, want %#x", c.name, l.initrd, c.initrd)
		}
	}
}

func TestLoad(t *testing.T) {
	initrd := []byte("the initrd")
	for name, file := range map[string][]byte{"bzImage": testBzImage(nil), "vmlinux": testVmlinux(nil)} {
		t.Run(name, func(t *testing.T) {
			k, err := parse(file)
			if err != nil {
				t.Fatal(err)
			}
			l, err := k.Plan(Input{Memory: 64 << 20, InitrdSize: uint64(len(initrd)), Cmdline: "a=b quiet", RSDP: 0xe0000})
			if err != nil {
				t.Fatal(err)
			}
			mem, err := memory.New(64 << 20)
			if err != nil {
				t.Fatal(err)
			}
			defer mem.Close()
			start, err := l.Load(mem, bytes.NewReader(file), bytes.NewReader(initrd))
			if err != nil {
				t.Fatal(err)
			}
			if start.RIP != k.Entry || start.ZeroPage != zeroPage || start.CR3 != pageTables || start.GDTLimit != 31 {
				t.Errorf("start: %+v", start)
			}
			text := map[string]string{"bzImage": "protected-mode kernel", "vmlinux": "kernel text 16 b"}[name]
			checkBytes(t, mem, 1<<24, text)
			checkBytes(t, mem, 64<<20-4096, string(initrd))
			checkBytes(t, mem, cmdlineAddr, "a=b quiet\x00")
			checkZeroPage(t, mem)
			checkMap(t, mem)
		})
	}
}

func checkBytes(t *testing.T, mem *memory.Memory, gpa memory.GPA, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if err := mem.ReadAt(got, gpa); err != nil || string(got) != want {
		t.Errorf("at %#x: %q, %v, want %q", gpa, got, err, want)
	}
}

// checkZeroPage reads the boot parameters by the offsets of zero-page.rst.
func checkZeroPage(t *testing.T, mem *memory.Memory) {
	t.Helper()
	for name, c := range map[string]struct {
		off  memory.GPA
		want uint64
	}{
		"acpi_rsdp_addr": {0x70, 0xe0000}, "cmd_line_ptr": {0x228, 0x20000},
		"ramdisk_image": {0x218, 64<<20 - 4096}, "ramdisk_size": {0x21c, 10},
	} {
		if got, err := mem.Uint32(zeroPage + c.off); err != nil || uint64(got) != c.want {
			t.Errorf("%s: %#x, %v, want %#x", name, got, err, c.want)
		}
	}
	checkBytes(t, mem, zeroPage+0x1fe, "\x55\xaa")
	checkBytes(t, mem, zeroPage+0x202, "HdrS")
	checkBytes(t, mem, zeroPage+0x210, "\xff") // type_of_loader
	checkBytes(t, mem, zeroPage+0x1e8, "\x02") // e820_entries
	var got [2]e820Entry
	b, err := mem.Slice(zeroPage+0x2d0, 40)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := binary.Decode(b, binary.LittleEndian, &got); err != nil {
		t.Fatal(err)
	}
	if want := [2]e820Entry{{0, 0x9fc00, 1}, {1 << 20, 63 << 20, 1}}; got != want {
		t.Errorf("e820 %+v, want %+v", got, want)
	}
}

// checkMap walks the page tables for addresses across the first 4 GiB.
func checkMap(t *testing.T, mem *memory.Memory) {
	t.Helper()
	for _, addr := range []uint64{0, 0x7000, 0x1000200, 0xd0000123, 1<<32 - 1} {
		table := uint64(pageTables)
		for _, shift := range []uint{39, 30, 21} {
			entry, err := mem.Uint64(memory.GPA(table + addr>>shift&511*8))
			if err != nil || entry&(ptePresent|pteWrite) != ptePresent|pteWrite {
				t.Fatalf("%#x: entry %#x at level of bit %d, %v", addr, entry, shift, err)
			}
			table = entry &^ 0xfff
		}
		if got := table&^0x1fffff | addr&0x1fffff; got != addr {
			t.Errorf("%#x is mapped to %#x", addr, got)
		}
	}
}

func TestE820AboveTheHole(t *testing.T) {
	mem, err := memory.New(5 << 30)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	want := []e820Entry{{0, 0x9fc00, 1}, {1 << 20, 3<<30 - 1<<20, 1}, {4 << 30, 2 << 30, 1}}
	got := e820(mem)
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entry %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

// TestLoadTruncated: the file shrank after Parse.
func TestLoadTruncated(t *testing.T) {
	file := testVmlinux(nil)
	k, err := parse(file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := k.Plan(Input{Memory: 64 << 20, InitrdSize: 100})
	if err != nil {
		t.Fatal(err)
	}
	mem, err := memory.New(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	if _, err := l.Load(mem, bytes.NewReader(file[:240]), nil); err == nil {
		t.Error("a truncated kernel was loaded")
	}
	if _, err := l.Load(mem, bytes.NewReader(file), bytes.NewReader(make([]byte, 99))); err == nil {
		t.Error("a truncated initrd was loaded")
	}
}
