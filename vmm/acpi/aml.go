package acpi

import (
	"encoding/binary"
	"fmt"
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
	opNotify     = 0x86
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

// dsdt is the definition block: \_S5, the serial port, the power button and the
// virtio devices.
func dsdt(c Config) []byte {
	s5 := name(`_S5_`, sized(opPackage, []byte{4, opByte, SleepType, opZero, opZero, opZero}))
	sb := append(serialDevice(c), powerButton(c)...)
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

// powerButton is a button and the generic event device that presses it, which is
// how hardware-reduced machines do it (section 5.6.9).
func powerButton(c Config) []byte {
	button := append([]byte("PWRB"), name("_HID", dword(pnp0c0c))...)
	const oneArgument, serialized, pressed = 1, 1 << 3, 0x80
	method := append([]byte("_EVT"), oneArgument|serialized, opNotify)
	method = append(method, "PWRB"...) // found in the scope around GED0
	method = append(method, opByte, pressed)
	events := []byte("GED0")
	events = append(events, name("_HID", append([]byte{opString}, "ACPI0013\x00"...))...)
	events = append(events, name("_UID", []byte{opZero})...)
	events = append(events, name("_CRS", resources(interrupt(c.PowerGSI)))...)
	events = append(events, sized(opMethod, method)...)
	return append(append([]byte{opExt}, sized(opDevice, button)...), append([]byte{opExt}, sized(opDevice, events)...)...)
}

func virtioDevice(i int, d MMIODevice) []byte {
	body := []byte(fmt.Sprintf("V%03X", i))
	body = append(body, name("_HID", append([]byte{opString}, "LNRO0005\x00"...))...)
	body = append(body, name("_UID", dword(uint32(i)))...)
	body = append(body, name("_CCA", []byte{1})...) // One: DMA is cache-coherent
	body = append(body, name("_CRS", resources(memory32(d.Base, d.Size), interrupt(d.GSI)))...)
	return append([]byte{opExt}, sized(opDevice, body)...)
}

// name is Name(seg, value); seg has four characters.
func name(seg string, value []byte) []byte {
	return append(append([]byte{opName}, seg...), value...)
}

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
