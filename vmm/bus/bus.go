// Package bus finds the device behind a port or memory-mapped access.
//
// A VM has one Bus for I/O ports and one for MMIO. Devices are registered while
// the VM is built; the vCPU loop then calls Read and Write for each exit. A
// device is called only for accesses that lie whole within its range, so its
// offsets need no check against its size. Ranges that overlap are refused.
package bus

import (
	"fmt"
	"slices"
	"sort"
)

// Handler is a device's register file. off counts from the registered base, and
// off+len(p) never passes the registered size; len(p) is 1 to 8 bytes, and need
// not be what the device expects. Values are little-endian. Handlers run on the
// vCPU's goroutine: they must neither block nor panic. p is not theirs to keep.
type Handler interface {
	Read(off uint64, p []byte)
	Write(off uint64, p []byte)
}

type entry struct {
	base, size uint64
	h          Handler
}

// Bus is a set of disjoint address ranges. Register must not run concurrently
// with anything else; Read and Write may run concurrently with each other.
type Bus struct {
	entries []entry // by base
}

// Register puts h behind [base, base+size). Size is not 0, the range does not
// wrap, and it overlaps no other.
func (b *Bus) Register(base, size uint64, h Handler) error {
	if size == 0 || base+size-1 < base {
		return fmt.Errorf("register [%#x, +%#x): not a range", base, size)
	}
	i := sort.Search(len(b.entries), func(i int) bool { return b.entries[i].base > base })
	if i > 0 {
		if prev := b.entries[i-1]; base-prev.base < prev.size {
			return fmt.Errorf("register [%#x, +%#x): overlaps [%#x, +%#x)", base, size, prev.base, prev.size)
		}
	}
	if i < len(b.entries) {
		if next := b.entries[i]; next.base-base < size {
			return fmt.Errorf("register [%#x, +%#x): overlaps [%#x, +%#x)", base, size, next.base, next.size)
		}
	}
	b.entries = slices.Insert(b.entries, i, entry{base, size, h})
	return nil
}

// Read fills p from the device at addr and reports true. Where no device claims
// all of [addr, addr+len(p)), p is all ones, as on an empty bus, and the answer
// is false.
func (b *Bus) Read(addr uint64, p []byte) bool {
	if e, ok := b.find(addr, uint64(len(p))); ok {
		e.h.Read(addr-e.base, p)
		return true
	}
	for i := range p {
		p[i] = 0xff
	}
	return false
}

// Write hands p to the device at addr and reports whether there is one that
// claims all of [addr, addr+len(p)).
func (b *Bus) Write(addr uint64, p []byte) bool {
	e, ok := b.find(addr, uint64(len(p)))
	if ok {
		e.h.Write(addr-e.base, p)
	}
	return ok
}

func (b *Bus) find(addr, n uint64) (entry, bool) {
	i := sort.Search(len(b.entries), func(i int) bool { return b.entries[i].base > addr })
	if i == 0 {
		return entry{}, false
	}
	e := b.entries[i-1]
	off := addr - e.base
	return e, off < e.size && n <= e.size-off
}
