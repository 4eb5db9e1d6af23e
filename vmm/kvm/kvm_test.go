package kvm

import (
	"encoding/binary"
	"errors"
	"os"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLayouts compares our structures with the sizes that the kernel's request
// numbers carry (bits 16 to 29), and what they do not say with <linux/kvm.h>.
func TestLayouts(t *testing.T) {
	for _, c := range []struct {
		request uint
		of      any
	}{
		{reqSetUserMemoryRegion, memoryRegion{}},
		{reqIRQLine, irqLevel{}},
		{reqIRQFD, irqFD{}},
		{reqIOEventFD, ioEventFD{}},
		{reqGetRegs, Regs{}},
		{reqGetSregs, Sregs{}},
		{reqGetIRQChip, irqChip{}},
		{reqSetIRQChip, irqChip{}},
		{reqGetClock, clockData{}},
		{reqSetClock, clockData{}},
		{reqGetRegs, CPUState{}.Regs},
		{reqGetSregs, CPUState{}.Sregs},
		{reqGetXSave, CPUState{}.XSave},
		{reqSetXSave, CPUState{}.XSave},
		{reqGetXCRs, CPUState{}.XCRs},
		{reqSetXCRs, CPUState{}.XCRs},
		{reqGetDebugRegs, CPUState{}.DebugRegs},
		{reqSetDebugRegs, CPUState{}.DebugRegs},
		{reqGetLAPIC, CPUState{}.LAPIC},
		{reqSetLAPIC, CPUState{}.LAPIC},
		{reqGetMPState, CPUState{}.MPState},
		{reqGetVCPUEvents, CPUState{}.Events},
		{reqSetVCPUEvents, CPUState{}.Events},
		{40 << 16, CPUIDEntry{}},
		{16 << 16, MSR{}},
	} {
		if want, got := c.request>>16&0x3fff, uint(reflect.TypeOf(c.of).Size()); got != want {
			t.Errorf("%T has %d bytes, request %#x says %d", c.of, got, c.request, want)
		}
	}
	for _, c := range []struct {
		of    any
		field string
		want  uintptr
	}{
		{ioEventFD{}, "flags", 24}, {Sregs{}, "CR0", 224}, {Sregs{}, "EFER", 264}, {Regs{}, "RIP", 128},
	} {
		if f, ok := reflect.TypeOf(c.of).FieldByName(c.field); !ok || f.Offset != c.want {
			t.Errorf("%T.%s is at %d, want %d", c.of, c.field, f.Offset, c.want)
		}
	}
}

// page makes a VCPU of a kvm_run page that no kernel wrote.
func page(fill func(d []byte)) *VCPU {
	p := make([]byte, 3*runPageSize)
	fill(p[offData:])
	return &VCPU{fd: -1, page: p}
}

func TestIODecoding(t *testing.T) {
	put := func(direction, size byte, port uint16, count uint32, off uint64) *VCPU {
		return page(func(d []byte) {
			d[0], d[1] = direction, size
			binary.NativeEndian.PutUint16(d[2:], port)
			binary.NativeEndian.PutUint32(d[4:], count)
			binary.NativeEndian.PutUint64(d[8:], off)
		})
	}
	for _, c := range []struct {
		name string
		cpu  *VCPU
		ok   bool
	}{
		{"a byte out", put(1, 1, 0x3f8, 1, 4096), true},
		{"a string in", put(0, 4, 0x1f0, 512, 4096), true},
		{"up to the end", put(0, 1, 0x1f0, 8192, 4096), true},
		{"past the end", put(0, 1, 0x1f0, 8193, 4096), false},
		{"count times size past the end", put(0, 4, 0x1f0, 2049, 4096), false},
		{"huge count", put(0, 4, 0x1f0, 1<<30, 4096), false},
		{"no items", put(0, 4, 0x1f0, 0, 4096), false},
		{"size 0", put(0, 0, 0x1f0, 1, 4096), false},
		{"size 3", put(0, 3, 0x1f0, 1, 4096), false},
		{"offset past the end", put(0, 1, 0x1f0, 1, 1<<40), false},
		{"offset wraps", put(0, 1, 0x1f0, 1, 1<<64-1), false},
	} {
		x, err := c.cpu.IO()
		if (err == nil) != c.ok {
			t.Errorf("%s: %+v, %v", c.name, x, err)
		}
	}
	x, err := put(1, 2, 0x64, 3, 5000).IO()
	if err != nil || x.Port != 0x64 || x.Size != 2 || !x.Write || len(x.Data) != 6 || cap(x.Data) != 6 {
		t.Errorf("%+v, %v", x, err)
	}
}

func TestMMIODecoding(t *testing.T) {
	put := func(n uint32, write byte) *VCPU {
		return page(func(d []byte) {
			binary.NativeEndian.PutUint64(d, 0xd0000050)
			copy(d[8:], "\x01\x02\x03\x04\x05\x06\x07\x08")
			binary.NativeEndian.PutUint32(d[16:], n)
			d[20] = write
		})
	}
	x, err := put(4, 1).MMIO()
	if err != nil || x.Addr != 0xd0000050 || !x.Write || string(x.Data) != "\x01\x02\x03\x04" {
		t.Errorf("%+v, %v", x, err)
	}
	for _, n := range []uint32{0, 9, 1 << 31} {
		if x, err := put(n, 0).MMIO(); err == nil {
			t.Errorf("%d bytes: accepted as %+v", n, x)
		}
	}
}

func TestInternalError(t *testing.T) {
	for _, c := range []struct {
		name     string
		suberror byte
		words    uint32
		data     string
		want     string
	}{
		{"int3", 1, 8, "\x01\x00\x00\x00\x00\x00\x00\x00\x02\xcc\x90", "it cannot emulate an instruction (cc 90)"},
		{"no bytes", 1, 0, "", "it cannot emulate an instruction"},
		{"length lies", 1, 3, "\x01\x00\x00\x00\x00\x00\x00\x00\xff\xcc",
			"it cannot emulate an instruction (cc 00 00 00 00 00 00 00 00 00 00 00 00 00 00)"},
		{"event delivery", 3, 1, "\x0e", "an exit while it delivered an event (0e 00 00 00 00 00 00 00)"},
		{"unknown", 9, 0, "", "internal error 9"},
	} {
		cpu := page(func(d []byte) {
			d[0] = c.suberror
			binary.NativeEndian.PutUint32(d[4:], c.words)
			copy(d[8:], c.data)
		})
		if got := cpu.InternalError(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	many := page(func(d []byte) { binary.NativeEndian.PutUint32(d[4:], 1<<31) })
	if got := len(many.InternalError()); got > 100+3*8*maxInternalWords {
		t.Errorf("a text of %d bytes", got)
	}
}

func TestRemedy(t *testing.T) {
	for _, errno := range []error{unix.ENOENT, unix.EACCES} {
		if Remedy(&os.PathError{Op: "open", Path: Path, Err: errno}) == "" {
			t.Errorf("no remedy for %v", errno)
		}
	}
	if r := Remedy(unix.EIO); r != "" {
		t.Errorf("a remedy for EIO: %q", r)
	}
}

// TestRealKVM asks this host's KVM, whatever kind it is.
func TestRealKVM(t *testing.T) {
	sys, err := Open()
	if errors.Is(err, os.ErrNotExist) && os.Getenv("DUPLEX_IN_LAB") != "1" {
		t.Skip("no /dev/kvm; `make test` runs this test in the lab")
	}
	if err != nil {
		t.Fatal(err)
	}
	if v, err := sys.APIVersion(); err != nil || v != APIVersion {
		t.Errorf("API version %d, %v", v, err)
	}
	if missing, err := sys.Missing(); err != nil || len(missing) > 0 {
		t.Errorf("missing %v, %v", missing, err)
	}
	leaves, err := sys.SupportedCPUID()
	if err != nil {
		t.Fatal(err)
	}
	signature := ""
	for _, l := range leaves {
		if l.Function == 0x40000000 {
			for _, r := range []uint32{l.EBX, l.ECX, l.EDX} {
				signature += string(binary.LittleEndian.AppendUint32(nil, r))
			}
		}
	}
	if signature != "KVMKVMKVM\x00\x00\x00" {
		t.Errorf("hypervisor signature %q", signature)
	}
	vm, err := sys.CreateVM()
	if err != nil {
		t.Fatal(err)
	}
	cpu, err := vm.CreateVCPU(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := cpu.SetMSRs([]MSR{{Index: 0x1a0, Data: 1}, {Index: 0xdead0000}}); err == nil {
		t.Error("an MSR that does not exist was set")
	}
	if err := errors.Join(cpu.Close(), vm.Close(), sys.Close(), cpu.Close(), vm.Close(), sys.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
}
