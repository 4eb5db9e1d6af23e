package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/duplex-run/duplex/vmm/memory"
)

// Where Load puts things; see the package comment.
const (
	gdtAddr     memory.GPA = 0x500
	zeroPage    memory.GPA = 0x7000
	pageTables  memory.GPA = 0x9000
	cmdlineAddr memory.GPA = 0x20000
	cmdlineRoom            = 0x10000
	// ebdaStart is where usable low memory ends and firmware's begins.
	ebdaStart memory.GPA = 0x9fc00
)

// Errors of Plan.
var (
	ErrMemoryTooSmall = errors.New("too little guest memory")
	ErrCmdline        = errors.New("bad kernel command line")
)

// Input is what Plan arranges around a kernel.
type Input struct {
	Memory     uint64 // bytes of guest memory, as given to memory.New
	InitrdSize uint64 // bytes, 0 for none
	Cmdline    string
	RSDP       memory.GPA // of the ACPI tables, 0 for none
}

// Layout is a kernel, an initrd and a command line that fit.
type Layout struct {
	kernel *Kernel
	in     Input
	initrd memory.GPA
}

// Start is the state the first vCPU starts in.
type Start struct {
	RIP      memory.GPA // entry point
	ZeroPage memory.GPA // for RSI
	CR3      memory.GPA
	GDT      memory.GPA
	GDTLimit uint16
}

// Selectors of the GDT, as the 64-bit boot protocol names them.
const (
	CodeSelector = 0x10
	DataSelector = 0x18
)

// Plan finds a place for everything, or says what does not fit and how much
// would be needed. Errors wrap ErrMemoryTooSmall or ErrCmdline.
func (k *Kernel) Plan(in Input) (*Layout, error) {
	if len(in.Cmdline) > k.maxCmdline {
		return nil, fmt.Errorf("%w: %d bytes, the kernel takes %d", ErrCmdline, len(in.Cmdline), k.maxCmdline)
	}
	if i := strings.IndexAny(in.Cmdline, "\x00\n"); i >= 0 {
		return nil, fmt.Errorf("%w: control character at byte %d", ErrCmdline, i)
	}
	low := min(in.Memory, uint64(memory.HoleStart))
	if uint64(k.end) > low {
		return nil, fmt.Errorf("%w: the kernel needs %s, the guest has %s",
			ErrMemoryTooSmall, mib(uint64(k.end)), mib(in.Memory))
	}
	l := &Layout{kernel: k, in: in}
	if in.InitrdSize == 0 {
		return l, nil
	}
	top := min(low, uint64(k.initrdMax)+1)
	room := top - min(top, pageUp(uint64(k.end)))
	if in.InitrdSize > room {
		return nil, fmt.Errorf("%w: an initrd of %s does not fit into the %s the kernel leaves of %s",
			ErrMemoryTooSmall, mib(in.InitrdSize), mib(room), mib(in.Memory))
	}
	l.initrd = memory.GPA((top - in.InitrdSize) &^ (pageSize - 1))
	return l, nil
}

// Sizes are the bytes that Load takes from the kernel's and the initrd's file.
func (l *Layout) Sizes() (kernel, initrd uint64) {
	for _, s := range l.kernel.segments {
		kernel += s.fileSize
	}
	return kernel, l.in.InitrdSize
}

func pageUp(n uint64) uint64 { return (n + pageSize - 1) &^ (pageSize - 1) }

func mib(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// Load copies the kernel and the initrd (nil for none) from their files and
// writes the zero page, page tables, GDT and command line. mem has the size
// that the layout was planned for and is all zero.
func (l *Layout) Load(mem *memory.Memory, kernel, initrd io.ReaderAt) (Start, error) {
	for _, s := range l.kernel.segments {
		if err := copyIn(mem, s.gpa, kernel, s.offset, s.fileSize); err != nil {
			return Start{}, fmt.Errorf("load the kernel: %w", err)
		}
	}
	if l.in.InitrdSize > 0 {
		if err := copyIn(mem, l.initrd, initrd, 0, l.in.InitrdSize); err != nil {
			return Start{}, fmt.Errorf("load the initrd: %w", err)
		}
	}
	err := errors.Join(
		mem.WriteAt(append([]byte(l.in.Cmdline), 0), cmdlineAddr),
		l.writeZeroPage(mem),
		writePageTables(mem),
		writeGDT(mem),
	)
	if err != nil {
		return Start{}, fmt.Errorf("write boot parameters: %w", err)
	}
	return Start{
		RIP: l.kernel.Entry, ZeroPage: zeroPage, CR3: pageTables,
		GDT: gdtAddr, GDTLimit: uint16(8*len(gdt) - 1),
	}, nil
}

// copyIn reads n bytes at off straight into guest memory.
func copyIn(mem *memory.Memory, gpa memory.GPA, r io.ReaderAt, off int64, n uint64) error {
	b, err := mem.Slice(gpa, n)
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(io.NewSectionReader(r, off, int64(n)), b); err != nil {
		return fmt.Errorf("read %d bytes at %d: %w", n, off, err)
	}
	return nil
}

// Offsets in struct boot_params (Documentation/arch/x86/zero-page.rst).
const (
	offRSDP        = 0x070
	offE820Entries = 0x1e8
	offE820Table   = 0x2d0
	e820RAM        = 1
)

type e820Entry struct {
	Addr, Size uint64
	Type       uint32
}

func (l *Layout) writeZeroPage(mem *memory.Memory) error {
	h := l.kernel.header
	h.TypeOfLoader = loaderUndefined
	h.CmdLinePtr = uint32(cmdlineAddr)
	h.CmdlineSize = uint32(len(l.in.Cmdline))
	h.RamdiskImage, h.RamdiskSize = uint32(l.initrd), uint32(l.in.InitrdSize)

	page := make([]byte, pageSize)
	if _, err := binary.Encode(page[headerOffset:], binary.LittleEndian, &h); err != nil {
		return err
	}
	binary.LittleEndian.PutUint64(page[offRSDP:], uint64(l.in.RSDP))
	var table bytes.Buffer
	n := 0
	for _, e := range e820(mem) {
		if err := binary.Write(&table, binary.LittleEndian, e); err != nil {
			return err
		}
		n++
	}
	page[offE820Entries] = byte(n)
	copy(page[offE820Table:], table.Bytes())
	return mem.WriteAt(page, zeroPage)
}

// e820 lists the memory the kernel may use: everything but [ebdaStart, 1 MiB),
// which a PC's firmware owns and where the ACPI tables are.
func e820(mem *memory.Memory) []e820Entry {
	entries := []e820Entry{{0, uint64(ebdaStart), e820RAM}}
	for _, r := range mem.Regions() {
		start, end := uint64(max(r.Start, lowMemoryEnd)), uint64(r.Start)+uint64(len(r.Bytes))
		if start < end {
			entries = append(entries, e820Entry{start, end - start, e820RAM})
		}
	}
	return entries
}

// Page table entry bits, SDM volume 3, section 4.5.
const (
	ptePresent = 1 << 0
	pteWrite   = 1 << 1
	pteHuge    = 1 << 7
)

// writePageTables identity-maps the first 4 GiB: one PML4, one page directory
// pointer table and four page directories of 2 MiB pages.
func writePageTables(mem *memory.Memory) error {
	b, err := mem.Slice(pageTables, 6*pageSize)
	if err != nil {
		return err
	}
	const pointers, directories = pageTables + pageSize, pageTables + 2*pageSize
	put := func(page, i int, v uint64) { binary.LittleEndian.PutUint64(b[page*pageSize+8*i:], v) }
	put(0, 0, uint64(pointers)|ptePresent|pteWrite)
	for i := range 4 {
		put(1, i, uint64(directories)+uint64(i)*pageSize|ptePresent|pteWrite)
		for j := range 512 {
			put(2+i, j, uint64(i)<<30|uint64(j)<<21|ptePresent|pteWrite|pteHuge)
		}
	}
	return nil
}

// gdt holds flat 64-bit code at 0x10 and data at 0x18 (SDM volume 3, section
// 3.4.5), each present, accessed and for ring 0.
var gdt = [...]uint64{0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff}

func writeGDT(mem *memory.Memory) error {
	for i, d := range gdt {
		if err := mem.PutUint64(gdtAddr+memory.GPA(8*i), d); err != nil {
			return err
		}
	}
	return nil
}
