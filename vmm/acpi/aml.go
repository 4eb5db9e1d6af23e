package acpi

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// AML opcodes, ACPI 6.5 section 20.3.
const (
	opZero       = 0x00
	opName       = 0x08
	opByte       = 0x0a
	opDWord      = 0x0c
	opString     = 0x0d
	opScope      = 0x10
	opBuffer     = 0x11
	opPackage    = 0x12
	opMethod     = 0x14
	opArg0       = 0x68
	opNotify     = 0x86
	opEqual      = 0x93
	opIf         = 0xa0
	opElse       = 0xa1
	opExt        = 0x5b
	opDevice     = 0x82
	resIO        = 0x47 // I/O port descriptor, section 6.4.2.5
	resEnd       = 0x79 // end tag, section 6.4.2.9
	resMemory32  = 0x86 // 32-bit fixed memory range, section 6.4.3.4
	resInterrupt = 0x89 // extended interrupt descriptor, section 6.4.3.6
)

// EISA identifiers, packed as section 19.3.4 says.
const (
	pnp0501 = 0x0105d041 // "PNP0501", a 16550
	pnp0c0c = 0x0c0cd041 // "PNP0C0C", a power button
)

// dsdt is the definition block: \_S5, the serial port, the power button, the
// generation id and the virtio devices.
func dsdt(c Config) []byte {
	s5 := name(`_S5_`, sized(opPackage, []byte{4, opByte, SleepType, opZero, opZero, opZero}))
	sb := slices.Concat(serialDevice(c), powerButton(), generationID(), events(c))
	for i, d := range c.Devices {
		sb = append(sb, virtioDevice(i, d)...)
	}
	return append(s5, sized(opScope, append([]byte(`_SB_`), sb...))...)
}

func serialDevice(c Config) []byte {
	body := []byte("COM1")
	body = append(body, name("_HID", dword(pnp0501))...)
	body = append(body, name("_UID", []byte{opZero})...)
	body = append(body, name("_CRS", resources(ports(c.SerialPort, 8), interrupt(c.SerialGSI)))...)
	return append([]byte{opExt}, sized(opDevice, body)...)
}

func powerButton() []byte {
	body := append([]byte("PWRB"), name("_HID", dword(pnp0c0c))...)
	return append([]byte{opExt}, sized(opDevice, body)...)
}

// generationID is the device of Microsoft's "Virtual Machine Generation ID"
// (2012): ADDR is where the 16 bytes are. Linux (drivers/virt/vmgenid.c) knows it by
// one of the two compatible ids, the second since 6.1.x and for firmware that keeps
// to the eight characters of section 6.1.5.
func generationID() []byte {
	const known = "VM_Gen_Counter"
	body := []byte("VGEN")
	body = append(body, name("_HID", text("DPLX0001"))...)
	body = append(body, name("_CID", sized(opPackage, slices.Concat([]byte{2}, text(known), text("VMGENCTR"))))...)
	body = append(body, name("_DDN", text(known))...)
	low, high := dword(uint32(GenerationID)), []byte{opZero}
	body = append(body, name("ADDR", sized(opPackage, slices.Concat([]byte{2}, low, high)))...)
	return append([]byte{opExt}, sized(opDevice, body)...)
}

// events is the generic event device, which is how hardware-reduced machines tell
// the kernel something (section 5.6.9): its method gets the interrupt's number, and
// presses the button or says that the generation id has changed.
func events(c Config) []byte {
	const oneArgument, serialized = 1, 1 << 3
	const pressed, changed = 0x80, 0x80
	notify := func(device string, value byte) []byte { // found in the scope around GED0
		return slices.Concat([]byte{opNotify}, []byte(device), []byte{opByte, value})
	}
	isPower := []byte{opEqual, opArg0, opByte, byte(c.PowerGSI)}
	method := slices.Concat(append([]byte("_EVT"), oneArgument|serialized),
		sized(opIf, append(isPower, notify("PWRB", pressed)...)), sized(opElse, notify("VGEN", changed)))
	body := []byte("GED0")
	body = append(body, name("_HID", text("ACPI0013"))...)
	body = append(body, name("_UID", []byte{opZero})...)
	body = append(body, name("_CRS", resources(interrupt(c.PowerGSI), interrupt(c.GenerationGSI)))...)
	body = append(body, sized(opMethod, method)...)
	return append([]byte{opExt}, sized(opDevice, body)...)
}

func virtioDevice(i int, d MMIODevice) []byte {
	body := []byte(fmt.Sprintf("V%03X", i))
	body = append(body, name("_HID", text("LNRO0005"))...)
	body = append(body, name("_UID", dword(uint32(i)))...)
	body = append(body, name("_CCA", []byte{1})...) // One: DMA is cache-coherent
	body = append(body, name("_CRS", resources(memory32(d.Base, d.Size), interrupt(d.GSI)))...)
	return append([]byte{opExt}, sized(opDevice, body)...)
}

// name is Name(seg, value); seg has four characters.
func name(seg string, value []byte) []byte {
	return append(append([]byte{opName}, seg...), value...)
}

// text is a string in ASCII.
func text(s string) []byte { return append(append([]byte{opString}, s...), 0) }

func dword(v uint32) []byte {
	return binary.LittleEndian.AppendUint32([]byte{opDWord}, v)
}

// sized is an opcode, the PkgLength of what follows (section 20.2.4; it counts
// itself), and the body.
func sized(op byte, body []byte) []byte {
	n := len(body) + 1
	var length []byte
	switch {
	case n < 1<<6:
		length = []byte{byte(n)}
	case n+1 < 1<<12:
		n++
		length = []byte{1<<6 | byte(n&0xf), byte(n >> 4)}
	default:
		n += 2
		length = []byte{2<<6 | byte(n&0xf), byte(n >> 4), byte(n >> 12)}
	}
	return append(append([]byte{op}, length...), body...)
}

// resources is a resource template: a buffer of descriptors and an end tag
// whose checksum byte 0 means "not checked".
func resources(descriptors ...[]byte) []byte {
	var all []byte
	for _, d := range descriptors {
		all = append(all, d...)
	}
	all = append(all, resEnd, 0)
	return sized(opBuffer, append([]byte{opByte, byte(len(all))}, all...))
}

func ports(base uint16, n byte) []byte {
	const decode16 = 1
	b := []byte{resIO, decode16}
	b = binary.LittleEndian.AppendUint16(b, base)
	b = binary.LittleEndian.AppendUint16(b, base)
	return append(b, 1, n)
}

func memory32(base, size uint32) []byte {
	const writable = 1
	b := []byte{resMemory32, 9, 0, writable}
	b = binary.LittleEndian.AppendUint32(b, base)
	return binary.LittleEndian.AppendUint32(b, size)
}

func interrupt(gsi uint32) []byte {
	const consumer, edge, activeHigh, exclusive = 1 << 0, 1 << 1, 0, 0
	b := []byte{resInterrupt, 6, 0, consumer | edge | activeHigh | exclusive, 1}
	return binary.LittleEndian.AppendUint32(b, gsi)
}
