package mmio

import (
	"encoding/binary"
	"testing"
)

// An empty place is a virtio one without a device, and nothing else.
func TestEmpty(t *testing.T) {
	want := map[uint64]uint32{regMagicValue: magic, regVersion: 2, regVendorID: vendorID}
	for off := uint64(0); off < Size; off += 4 {
		p := []byte{1, 2, 3, 4}
		Empty{}.Write(off, p)
		Empty{}.Read(off, p)
		if got := binary.LittleEndian.Uint32(p); got != want[off] {
			t.Errorf("register %#x is %#x, want %#x", off, got, want[off])
		}
	}
	p := []byte{1, 2}
	if (Empty{}).Read(regMagicValue, p); p[0] != 0 || p[1] != 0 {
		t.Errorf("half a register is %x", p)
	}
}
