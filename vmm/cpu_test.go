package vmm

import (
	"errors"
	"testing"

	"github.com/duplex-run/duplex/vmm/kvm"
)

func TestGuestCPUID(t *testing.T) {
	host := []kvm.CPUIDEntry{
		{Function: leafVendor, EAX: 0xd, EBX: 0x68747541}, // AMD
		{Function: leafFeatures, EBX: 0x07080800, EDX: edxHTT},
		{Function: leafTopology, Index: 0, EBX: 2}, {Function: leafTopology, Index: 1, EBX: 16},
		{Function: leafAMDFeatures}, {Function: leafSizes, EAX: 48, ECX: 0x400f},
		{Function: leafAMDCaches, Index: 3, EAX: 3<<5 | 3 | 15<<14},
		{Function: leafAMDTopology, EAX: 7, EBX: 0x103, ECX: 0x100},
	}
	find := func(l []kvm.CPUIDEntry, f, index uint32) kvm.CPUIDEntry {
		for _, e := range l {
			if e.Function == f && e.Index == index {
				return e
			}
		}
		t.Fatalf("no leaf %#x.%d", f, index)
		return kvm.CPUIDEntry{}
	}
	one := guestCPUID(host, 0, 1)
	if l := find(one, leafFeatures, 0); l.EBX != 0x00010800 || l.EDX&edxHTT != 0 {
		t.Errorf("one CPU: leaf 1: %+v", l)
	}
	for id := range 5 {
		got := guestCPUID(host, id, 5)
		for _, c := range []struct {
			f, index uint32
			want     kvm.CPUIDEntry
		}{
			{leafFeatures, 0, kvm.CPUIDEntry{EBX: uint32(id)<<24 | 5<<16 | 0x0800, EDX: edxHTT}},
			{leafTopology, 0, kvm.CPUIDEntry{Index: 0, Flags: 1, EBX: 1, ECX: 0x100, EDX: uint32(id)}},
			{leafTopology, 1, kvm.CPUIDEntry{Index: 1, Flags: 1, EAX: 3, EBX: 5, ECX: 0x201, EDX: uint32(id)}},
			{leafTopology, 2, kvm.CPUIDEntry{Index: 2, Flags: 1, ECX: 2, EDX: uint32(id)}},
			{leafSizes, 0, kvm.CPUIDEntry{EAX: 48, ECX: 0x3004}},
			{leafAMDFeatures, 0, kvm.CPUIDEntry{ECX: ecxCmpLegacy}},
			{leafAMDCaches, 3, kvm.CPUIDEntry{Index: 3, EAX: 3<<5 | 3 | 7<<14}},
			{leafAMDTopology, 0, kvm.CPUIDEntry{EAX: uint32(id), EBX: uint32(id)}},
		} {
			c.want.Function = c.f
			if l := find(got, c.f, c.index); l != c.want {
				t.Errorf("CPU %d of 5: leaf %#x.%d: %+v, want %+v", id, c.f, c.index, l, c.want)
			}
		}
	}
	if host[1].EBX != 0x07080800 {
		t.Error("the host's leaves were changed")
	}
}

func TestCheckMemory(t *testing.T) {
	leaves := []kvm.CPUIDEntry{{Function: leafSizes, EAX: 40}} // 1 TiB
	for _, c := range []struct {
		memory uint64
		ok     bool
	}{{4 << 20, true}, {512 << 30, true}, {1023 << 30, true}, {1024 << 30, false}} {
		err := blank(Config{CPUs: 1, Memory: c.memory}).checkMemory(leaves)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrConfig) {
			t.Errorf("%d GiB: %v", c.memory>>30, err)
		}
	}
}
