package vmm

import (
	"encoding/binary"
	"testing"
	"unsafe"

	"github.com/duplex-run/duplex/vmm/kvm"
)

func TestUnbusyTask(t *testing.T) {
	if at := unsafe.Offsetof(kvm.Sregs{}.TR) + unsafe.Offsetof(kvm.Segment{}.Type); at != trType {
		t.Fatalf("the type is at %d, not %d", at, trType)
	}
	for vendor, want := range map[string]byte{"AuthenticAMD": 9, "GenuineIntel": 11} {
		leaves := []kvm.CPUIDEntry{{EBX: binary.LittleEndian.Uint32([]byte(vendor))}}
		var s kvm.CPUState
		s.Sregs[trType] = 11
		if unbusyTask(leaves, &s); s.Sregs[trType] != want {
			t.Errorf("%s: the type is %d, want %d", vendor, s.Sregs[trType], want)
		}
	}
}
