package acpi

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
)

func machine(devices int) Config {
	c := Config{
		CPUs: 1, SleepControl: 0x600, SleepStatus: 0x601, ResetPort: 0x64, ResetValue: 0xfe,
		SerialPort: 0x3f8, SerialGSI: 4, PowerGSI: 5, GenerationGSI: 3,
	}
	for i := range devices {
		c.Devices = append(c.Devices, MMIODevice{Base: 0xd0000000 + uint32(i)*0x1000, Size: 0x1000, GSI: uint32(5 + i)})
	}
	return c
}

// walk follows the tables from the RSDP as a kernel does, checking lengths and
// checksums, and returns them by signature.
func walk(t *testing.T, mem *memory.Memory, at memory.GPA) map[string][]byte {
	t.Helper()
	rsdp, err := mem.Slice(at, 36)
	if err != nil {
		t.Fatal(err)
	}
	if string(rsdp[:8]) != "RSD PTR " || checksum(rsdp[:20]) != 0 || checksum(rsdp) != 0 {
		t.Fatalf("RSDP % x", rsdp)
	}
	tables := map[string][]byte{}
	read := func(at uint64) []byte {
		if at%8 != 0 {
			t.Errorf("table at %#x is not aligned", at)
		}
		size, err := mem.Uint32(memory.GPA(at) + 4)
		if err != nil {
			t.Fatal(err)
		}
		b, err := mem.Slice(memory.GPA(at), uint64(size))
		if err != nil {
			t.Fatal(err)
		}
		if checksum(b) != 0 {
			t.Errorf("%s: bad checksum", b[:4])
		}
		tables[string(b[:4])] = b
		return b
	}
	xsdt := read(binary.LittleEndian.Uint64(rsdp[24:]))
	for e := xsdt[36:]; len(e) >= 8; e = e[8:] {
		read(binary.LittleEndian.Uint64(e))
	}
	read(binary.LittleEndian.Uint64(tables["FACP"][140:]))
	return tables
}

func TestBuild(t *testing.T) {
	mem, err := memory.New(2 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	at, err := Build(mem, machine(3))
	if err != nil || at != Base {
		t.Fatalf("RSDP at %#x, %v", at, err)
	}
	tables := walk(t, mem, at)
	for name, size := range map[string]int{"XSDT": 36 + 16, "FACP": 276, "APIC": 44 + 8 + 12} {
		if len(tables[name]) != size {
			t.Errorf("%s has %d bytes, want %d", name, len(tables[name]), size)
		}
	}
	f := tables["FACP"]
	if flags := binary.LittleEndian.Uint32(f[112:]); flags != 1<<0|1<<10|1<<20 {
		t.Errorf("FADT flags %#x", flags)
	}
	for name, c := range map[string]struct {
		off  int
		want string
	}{
		"reset register": {116, "0108000164" + "00000000000000" + "fe"},
		"sleep control":  {244, "010800010006" + "000000000000"},
		"sleep status":   {256, "010800010106" + "000000000000"},
	} {
		if got := hex.EncodeToString(f[c.off : c.off+len(c.want)/2]); got != c.want {
			t.Errorf("FADT %s: %s, want %s", name, got, c.want)
		}
	}
	want := "0000e0fe00000000" + "0008000001000000" + "010c0000" + "0000c0fe" + "00000000"
	if got := hex.EncodeToString(tables["APIC"][36:]); got != want {
		t.Errorf("MADT %s, want %s", got, want)
	}
}

// TestDSDT compares the AML with what iasl 20200925 makes of
//
//	Name (\_S5, Package () {5, Zero, Zero, Zero})
//	Scope (\_SB) {
//	  Device (COM1) {
//	    Name (_HID, EisaId ("PNP0501"))
//	    Name (_UID, Zero)
//	    Name (_CRS, ResourceTemplate () {
//	      IO (Decode16, 0x3F8, 0x3F8, 1, 8)
//	      Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) {4} })
//	  }
//	  Device (PWRB) { Name (_HID, EisaId ("PNP0C0C")) }
//	  Device (VGEN) {
//	    Name (_HID, "DPLX0001")
//	    Name (_CID, Package () { "VM_Gen_Counter", "VMGENCTR" })
//	    Name (_DDN, "VM_Gen_Counter")
//	    Name (ADDR, Package () { 0xFF000, Zero })
//	  }
//	  Device (GED0) {
//	    Name (_HID, "ACPI0013")
//	    Name (_UID, Zero)
//	    Name (_CRS, ResourceTemplate () {
//	      Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) {5}
//	      Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) {3} })
//	    Method (_EVT, 1, Serialized) {
//	      If (LEqual (Arg0, 5)) { Notify (PWRB, 0x80) } Else { Notify (VGEN, 0x80) }
//	    }
//	  }
//	  Device (V000) {
//	    Name (_HID, "LNRO0005")
//	    Name (_UID, 0) // but as a DWord
//	    Name (_CCA, One)
//	    Name (_CRS, ResourceTemplate () {
//	      Memory32Fixed (ReadWrite, 0xD0000000, 0x1000)
//	      Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) {5} })
//	  }
//	}
func TestDSDT(t *testing.T) {
	want := strings.Join([]string{
		"08 5f53355f 12 07 04 0a05 00 00 00",
		"10 44 14 5f53425f",
		"5b82 31 434f4d31",
		"08 5f484944 0c 41d00501",
		"08 5f554944 00",
		"08 5f435253 11 16 0a13 4701f803f8030108 89060003 01 04000000 7900",
		"5b82 0f 50575242 08 5f484944 0c 41d00c0c",
		"5b82 4a05 5647454e 08 5f484944 0d 44504c5830303031 00",
		"08 5f434944 12 1c 02 0d 564d5f47656e5f436f756e746572 00 0d 564d47454e435452 00",
		"08 5f44444e 0d 564d5f47656e5f436f756e746572 00 08 41444452 12 08 02 0c 00f00f00 00",
		"5b82 4505 47454430 08 5f484944 0d 4143504930303133 00 08 5f554944 00",
		"08 5f435253 11 17 0a14 89060003 01 05000000 89060003 01 03000000 7900",
		"14 1c 5f455654 09 a0 0c 93 68 0a05 86 50575242 0a80 a1 08 86 5647454e 0a80",
		"5b82 45 04 56303030",
		"08 5f484944 0d 4c4e524f3030303500",
		"08 5f554944 0c 00000000",
		"08 5f434341 01",
		"08 5f435253 11 1a 0a17 86090001 000000d0 00100000 89060003 01 05000000 7900",
	}, "")
	b, err := hex.DecodeString(strings.ReplaceAll(want, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	if got := dsdt(machine(1)); !bytes.Equal(got, b) {
		t.Errorf("got  % x\nwant % x", got, b)
	}
}

// TestPackageLength reads back what sized writes, in each of its forms.
func TestPackageLength(t *testing.T) {
	for _, n := range []int{0, 1, 62, 63, 64, 4093, 4094, 4095, 5000, 100000} {
		b := sized(opScope, make([]byte, n))
		extra := int(b[1] >> 6)
		length := int(b[1] & 0x3f)
		if extra > 0 {
			length = int(b[1] & 0xf)
		}
		for i := range extra {
			length |= int(b[2+i]) << (4 + 8*i)
		}
		if length != len(b)-1 {
			t.Errorf("body of %d bytes: length %d, want %d", n, length, len(b)-1)
		}
	}
}

func TestBuildMany(t *testing.T) {
	mem, err := memory.New(2 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	if _, err := Build(mem, machine(200)); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(walk(t, mem, Base)["DSDT"], []byte("LNRO0005")); n != 200 {
		t.Errorf("%d devices in the DSDT", n)
	}
	if _, err := Build(mem, machine(3000)); err == nil {
		t.Error("tables past their place were accepted")
	}
	for _, cpus := range []int{0, 256} {
		c := machine(0)
		c.CPUs = cpus
		if _, err := Build(mem, c); err == nil {
			t.Errorf("%d CPUs were accepted", cpus)
		}
	}
	small, err := memory.New(4096)
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	if _, err := Build(small, machine(0)); err == nil {
		t.Error("memory without a BIOS area was accepted")
	}
}
