package vmm

import (
	"bytes"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/balloon"
	vconsole "github.com/duplex-run/duplex/vmm/virtio/console"
	"github.com/duplex-run/duplex/vmm/virtio/mmio"
	"github.com/duplex-run/duplex/vmm/virtio/rng"
	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

// up is the accesses that bring device i up with one queue of 8.
func up(i byte) []byte {
	var ops []byte
	set := func(reg, value byte) { ops = append(ops, i, reg, 0, 4, value) }
	set(0x70, 1)
	set(0x70, 3)
	set(0x24, 1)
	set(0x20, 1)
	set(0x70, 11)
	set(0x38, 8)
	set(0x80, 0) // all areas at the start of memory
	set(0x44, 1)
	set(0x70, 15)
	set(0x50, 0)
	return ops
}

// FuzzMMIO does accesses to the devices' pages and around them as the input
// says: a byte of page, two of offset, one of width and direction, one of value.
// Nothing may panic, what no device claims reads as ones, and afterwards a reset
// brings each device's status to zero.
func FuzzMMIO(f *testing.F) {
	for i := range byte(4) {
		f.Add(up(i))
	}
	f.Add([]byte{0, 0xff, 0x0f, 12, 1, 4, 0, 0, 4, 1, 3, 0x00, 0x01, 7, 9})
	f.Fuzz(func(t *testing.T, ops []byte) {
		v := &VM{}
		sock, err := vsock.New(3)
		if err != nil {
			t.Fatal(err)
		}
		mem, err := memory.FromRegions(memory.Region{Start: 0, Bytes: make([]byte, 64<<10)})
		if err != nil {
			t.Fatal(err)
		}
		devices := []virtio.Device{rng.New(), sock, balloon.New(balloon.Options{}),
			vconsole.New(vconsole.Options{In: strings.NewReader("input")})}
		for i, d := range devices {
			defer d.Close()
			if err := v.mmio.Register(mmioBase+uint64(i)*mmioSize, mmioSize, mmio.New(d, mem, func() {})); err != nil {
				t.Fatal(err)
			}
		}
		for ; len(ops) >= 5; ops = ops[5:] {
			addr := mmioBase + uint64(ops[0]%6)*mmioSize + uint64(ops[1]) + uint64(ops[2])<<8
			p := append(make([]byte, 0, 8), ops[4], 0, 0, 0, 0, 0, 0, 0)[:1+ops[3]&7]
			if ops[3]&8 == 0 {
				v.mmio.Write(addr, p)
			} else if !v.mmio.Read(addr, p) && !bytes.Equal(p, bytes.Repeat([]byte{0xff}, len(p))) {
				t.Errorf("%#x, which nobody claims, reads % x", addr, p)
			}
		}
		for i := range devices {
			status, p := mmioBase+uint64(i)*mmioSize+0x70, make([]byte, 4)
			v.mmio.Write(status, p)
			if v.mmio.Read(status, p); !bytes.Equal(p, make([]byte, 4)) {
				t.Errorf("status of device %d after a reset is % x", i, p)
			}
		}
	})
}
