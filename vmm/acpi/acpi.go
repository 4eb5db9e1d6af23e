// Package acpi makes the ACPI tables that tell a guest kernel what it runs on:
// how many CPUs, where the virtio-mmio devices are, how to power off and reset, and
// how to notice that it is another machine than before.
//
// The machine is "hardware-reduced" (ACPI 6.5 section 4.1): no PM timer, SCI,
// or legacy PIC and PIT, so the kernel probes for none of them. Build writes
// RSDP, XSDT, FADT, MADT and DSDT into [Base, End); the DSDT's AML is written
// out by aml.go.
package acpi

import (
	"encoding/binary"
	"fmt"

	"github.com/duplex-run/duplex/vmm/memory"
)

// Where the tables go: the BIOS area, which e820 leaves out, so that the kernel
// finds the RSDP by its own scan too.
const (
	Base memory.GPA = 0xe0000
	End  memory.GPA = 0x100000 - 4096
)

// GenerationID is where the machine's generation id is: GenerationIDSize random
// bytes, which change when the machine becomes another one, because it was restored
// from a snapshot. It has a page of its own, behind the tables, which the kernel
// takes for no memory of its own either.
const (
	GenerationID     = End
	GenerationIDSize = 16
)

// Addresses that the local and the I/O APIC of KVM's irqchip have.
const (
	localAPIC = 0xfee00000
	ioAPIC    = 0xfec00000
)

// SleepType is the SLP_TYP value of S5 (soft off) in the DSDT's \_S5 package.
const SleepType = 5

// SleepEnable is SLP_EN in the sleep control register; SLP_TYP is in bits 2-4.
const SleepEnable = 1 << 5

// MMIODevice is a virtio-mmio device (_HID LNRO0005).
type MMIODevice struct {
	Base uint32 // guest physical address of the register file
	Size uint32 // bytes
	GSI  uint32 // edge-triggered, active high
}

// Config is the machine to describe.
type Config struct {
	CPUs         int // 1 to 255, APIC ids from 0
	SleepControl uint16
	SleepStatus  uint16
	ResetPort    uint16
	ResetValue   byte
	SerialPort   uint16 // of a 16550
	SerialGSI    uint32
	PowerGSI     uint32 // an edge on it presses the power button; below 256
	// GenerationGSI has an edge after the bytes at GenerationID have changed.
	GenerationGSI uint32
	Devices       []MMIODevice
}

// Build writes the tables and returns the address of the RSDP, which is Base.
func Build(mem *memory.Memory, c Config) (memory.GPA, error) {
	if c.CPUs < 1 || c.CPUs > 255 {
		return 0, fmt.Errorf("write ACPI tables: %d CPUs, at most 255", c.CPUs)
	}
	const rsdpSize = 36
	next := Base + rsdpSize
	var place []byte // everything after the RSDP
	put := func(t []byte) uint64 {
		for len(place)%8 != 4 { // next is 4 modulo 8: keep tables at multiples of 8
			place = append(place, 0)
		}
		at := uint64(next) + uint64(len(place))
		place = append(place, t...)
		return at
	}
	dsdtAt := put(table("DSDT", 2, dsdt(c)))
	fadtAt := put(fadt(c, dsdtAt))
	madtAt := put(madt(c))
	var entries []byte
	for _, at := range []uint64{fadtAt, madtAt} {
		entries = binary.LittleEndian.AppendUint64(entries, at)
	}
	xsdtAt := put(table("XSDT", 1, entries))
	if uint64(next)+uint64(len(place)) > uint64(End) {
		return 0, fmt.Errorf("write ACPI tables: %d devices need %d bytes, there are %d",
			len(c.Devices), len(place), End-next)
	}
	if err := mem.WriteAt(rsdp(xsdtAt), Base); err != nil {
		return 0, fmt.Errorf("write ACPI tables: %w", err)
	}
	if err := mem.WriteAt(place, next); err != nil {
		return 0, fmt.Errorf("write ACPI tables: %w", err)
	}
	return Base, nil
}

const (
	oemID     = "DUPLEX"
	oemTable  = "DUPLEXVM"
	creatorID = "DPLX"
)

// table puts the header of ACPI 6.5 section 5.2.6 before a body, checksummed.
func table(signature string, revision byte, body []byte) []byte {
	t := make([]byte, 36, 36+len(body))
	copy(t[0:], signature)
	binary.LittleEndian.PutUint32(t[4:], uint32(36+len(body)))
	t[8] = revision
	copy(t[10:], oemID)
	copy(t[16:], oemTable)
	binary.LittleEndian.PutUint32(t[24:], 1)
	copy(t[28:], creatorID)
	binary.LittleEndian.PutUint32(t[32:], 1)
	t = append(t, body...)
	t[9] = checksum(t)
	return t
}

// checksum is the byte that makes b sum to 0.
func checksum(b []byte) byte {
	var sum byte
	for _, v := range b {
		sum += v
	}
	return -sum
}

// rsdp is the root pointer, section 5.2.5.3, revision 2.
func rsdp(xsdt uint64) []byte {
	r := make([]byte, 36)
	copy(r, "RSD PTR ")
	copy(r[9:], oemID)
	r[15] = 2
	binary.LittleEndian.PutUint32(r[20:], 36)
	binary.LittleEndian.PutUint64(r[24:], xsdt)
	r[8] = checksum(r[:20])
	r[32] = checksum(r)
	return r
}

// FADT flags, section 5.2.9, and its IA-PC boot architecture flags, which say
// that there is no i8042 to probe, no VGA, no MSI restriction and no CMOS clock.
const (
	fadtWBINVD     = 1 << 0
	fadtResetReg   = 1 << 10
	fadtHWReduced  = 1 << 20
	bootNoVGA      = 1 << 2
	bootNoCMOSRTC  = 1 << 5
	addressSpaceIO = 1
	accessByte     = 1
)

func fadt(c Config, dsdt uint64) []byte {
	const header, size = 36, 276
	b := make([]byte, size)
	binary.LittleEndian.PutUint32(b[40:], uint32(dsdt))
	binary.LittleEndian.PutUint16(b[109:], bootNoVGA|bootNoCMOSRTC)
	binary.LittleEndian.PutUint32(b[112:], fadtWBINVD|fadtResetReg|fadtHWReduced)
	gas(b[116:], c.ResetPort)
	b[128] = c.ResetValue
	b[131] = 5 // minor version: ACPI 6.5
	binary.LittleEndian.PutUint64(b[140:], dsdt)
	gas(b[244:], c.SleepControl)
	gas(b[256:], c.SleepStatus)
	copy(b[268:], oemID)
	return table("FACP", 6, b[header:])
}

// gas writes a generic address structure (section 5.2.3.2) for a byte-wide port.
func gas(b []byte, port uint16) {
	b[0], b[1], b[3] = addressSpaceIO, 8, accessByte
	binary.LittleEndian.PutUint64(b[4:], uint64(port))
}

// madt lists the local APICs and the I/O APIC, section 5.2.12.
func madt(c Config) []byte {
	b := binary.LittleEndian.AppendUint32(nil, localAPIC)
	b = binary.LittleEndian.AppendUint32(b, 0) // flags: no dual-8259
	for i := range c.CPUs {
		b = append(b, 0, 8, byte(i), byte(i), 1, 0, 0, 0) // enabled
	}
	b = append(b, 1, 12, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, ioAPIC)
	b = binary.LittleEndian.AppendUint32(b, 0) // first GSI
	return table("APIC", 5, b)
}
