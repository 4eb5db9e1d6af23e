package memory

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Discard gives the whole pages in the n bytes at gpa back to the host: they
// read as zero, and cost nothing until they are touched again. What the range
// has of a page at its ends stays as it is. The range must lie in one region.
// Memory of Map reads as its file instead of as zero.
//
// Memory of FromRegions, which need not be mapped page by page, is zeroed in the
// same places and given back to nobody.
func (m *Memory) Discard(gpa GPA, n uint64) error {
	b, err := m.find(gpa, n)
	if err != nil {
		return err
	}
	return m.discard(gpa, b)
}

// DiscardBytes is Discard for b, a slice that came from this Memory, such as a
// buffer of a virtqueue. Any other is refused with ErrOutOfRange.
func (m *Memory) DiscardBytes(b []byte) error {
	for _, r := range m.regions {
		if off, ok := offsetIn(r.Bytes, b); ok {
			return m.discard(r.Start+GPA(off), b)
		}
	}
	return &Error{0, uint64(len(b)), ErrOutOfRange}
}

// discard rounds b, which lies at gpa, inwards to pages. Mapped regions start at
// a multiple of the page size in the guest and in the host.
func (m *Memory) discard(gpa GPA, b []byte) error {
	head := uint64(-gpa % pageSize)
	if head >= uint64(len(b)) {
		return nil
	}
	b = b[head:]
	b = b[:len(b)&^(pageSize-1)]
	switch {
	case len(b) == 0:
	case !m.mapped:
		clear(b)
	default:
		if err := unix.Madvise(b, unix.MADV_DONTNEED); err != nil {
			return fmt.Errorf("discard guest memory at %#x, %d bytes: madvise: %w", uint64(gpa), len(b), err)
		}
	}
	return nil
}
