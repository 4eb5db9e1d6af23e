package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
)

func FuzzBzImage(f *testing.F) {
	f.Add(testBzImage(nil), uint16(16<<8), uint32(8192), "x")
	f.Add(testBzImage(func(h *setupHeader) { h.SetupSects, h.InitSize = 0, 0 }), uint16(4097), uint32(0), "")
	f.Fuzz(fuzz)
}

func FuzzVmlinux(f *testing.F) {
	f.Add(testVmlinux(nil), uint16(16<<8), uint32(8192), "x")
	f.Add(testVmlinux(nil), uint16(0x2001), uint32(1), "console=ttyS0")
	f.Fuzz(fuzz)
}

// FuzzBootParameters fuzzes the header of a bzImage alone, and looks at what the
// kernel is told.
func FuzzBootParameters(f *testing.F) {
	h := testBzImage(nil)[headerOffset:][:headerSize]
	f.Add(h, uint16(16<<8), uint32(8192), "console=ttyS0")
	f.Add(h, uint16(4112), uint32(1<<20), "")
	f.Fuzz(func(t *testing.T, h []byte, pages uint16, initrd uint32, cmdline string) {
		file := testBzImage(nil)
		copy(file[headerOffset:][:headerSize], h)
		fuzz(t, file, pages, initrd, cmdline)
	})
}

var headerSize = binary.Size(setupHeader{})

// fuzz loads whatever parses and fits into a memory of so many pages, and looks
// at what the kernel finds there.
func fuzz(t *testing.T, file []byte, pages uint16, initrd uint32, cmdline string) {
	k, err := parse(file)
	if err != nil {
		if !errors.Is(err, ErrNotKernel) {
			t.Errorf("error %v does not say that the file is at fault", err)
		}
		return
	}
	size, initrd := max(uint64(pages), 512)*pageSize, initrd%(64<<20)
	l, err := k.Plan(Input{Memory: size, InitrdSize: uint64(initrd), Cmdline: cmdline, RSDP: 0xe0000})
	if err != nil {
		if !errors.Is(err, ErrMemoryTooSmall) && !errors.Is(err, ErrCmdline) {
			t.Errorf("error of Plan: %v", err)
		}
		return
	}
	mem, err := memory.New(size)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	start, err := l.Load(mem, bytes.NewReader(file), zeroes{})
	if err != nil {
		t.Fatalf("what fits was not loaded: %v", err)
	}
	if start.RIP < lowMemoryEnd || uint64(start.RIP) >= size {
		t.Errorf("entry %#x", start.RIP)
	}
	checkParameters(t, k, mem, start.ZeroPage, initrd, cmdline)
}

// zeroes is a file of zeroes without an end.
type zeroes struct{}

func (zeroes) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// checkParameters wants all that the zero page points at to be inside memory and
// out of the kernel's way.
func checkParameters(t *testing.T, k *Kernel, mem *memory.Memory, at memory.GPA, initrd uint32, cmdline string) {
	page, err := mem.Slice(at, pageSize)
	if err != nil {
		t.Fatal(err)
	}
	var h setupHeader
	if _, err := binary.Decode(page[headerOffset:], binary.LittleEndian, &h); err != nil {
		t.Fatal(err)
	}
	got, err := mem.Slice(memory.GPA(h.CmdLinePtr), uint64(len(cmdline))+1)
	if err != nil || string(got) != cmdline+"\x00" {
		t.Errorf("command line %q, %v", got, err)
	}
	if initrd > 0 {
		first := memory.GPA(h.RamdiskImage)
		_, err := mem.Slice(first, uint64(initrd))
		if err != nil || h.RamdiskSize != initrd || first < k.end || first+memory.GPA(initrd)-1 > k.initrdMax {
			t.Errorf("initrd of %d bytes at %#x, kernel ends at %#x: %v", h.RamdiskSize, first, k.end, err)
		}
	}
	var before uint64
	for i := range int(page[offE820Entries]) {
		var e e820Entry
		if _, err := binary.Decode(page[offE820Table+20*i:], binary.LittleEndian, &e); err != nil {
			t.Fatal(err)
		}
		if _, err := mem.Slice(memory.GPA(e.Addr), e.Size); err != nil || e.Size == 0 || e.Addr < before || e.Type != e820RAM {
			t.Errorf("memory map entry %d: %+v, %v", i, e, err)
		}
		before = e.Addr + e.Size
	}
}
