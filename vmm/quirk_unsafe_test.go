package vmm

import (
	"encoding/binary"
	"testing"
	"unsafe"

	"github.com/duplex-run/duplex/vmm/kvm"
)

func TestSuitEmulator(t *testing.T) {
	if at := unsafe.Offsetof(kvm.Sregs{}.TR) + unsafe.Offsetof(kvm.Segment{}.Type); at != trType {
		t.Fatalf("the type is at %d, not %d", at, trType)
	}
	for name, want := range map[string]byte{"QEMU TCG CPU version 2.5+": 9, "AMD EPYC 7B13": 11, "": 11} {
		text := append([]byte(name), make([]byte, 48-len(name))...)
		var leaves []kvm.CPUIDEntry
		for i := range uint32(3) {
			r := func(n int) uint32 { return binary.LittleEndian.Uint32(text[int(i)*16+n*4:]) }
			leaves = append(leaves, kvm.CPUIDEntry{Function: 0x80000002 + i, EAX: r(0), EBX: r(1), ECX: r(2), EDX: r(3)})
		}
		var s kvm.CPUState
		s.Sregs[trType] = 11
		if suitEmulator(leaves, &s); s.Sregs[trType] != want {
			t.Errorf("on %q the type is %d, want %d", brand(leaves), s.Sregs[trType], want)
		}
	}
}
