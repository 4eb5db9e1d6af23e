package memory

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// aligned says whether b starts at a host address that is a multiple of 8.
// Precondition: b is not empty.
func aligned(b []byte) bool {
	// SAFETY: the address is only looked at.
	return uintptr(unsafe.Pointer(&b[0]))%8 == 0
}

// wordPointer returns the start of b as a word for sync/atomic.
// Precondition: len(b) >= 4 and b starts at a multiple of 4 in its region.
func wordPointer(b []byte) *uint32 {
	// SAFETY: b holds four bytes, and every region starts at a host address that
	// is a multiple of 8 (mmap or FromRegions), so the word is aligned and inside.
	// b is not read: that would race with the atomic writes of another goroutine.
	return (*uint32)(unsafe.Pointer(&b[0]))
}

// resident is what mincore(2) says of a page in memory.
var resident = []byte{1}

// offsetIn says where in region b lies, and whether it does. A region is not
// empty; an empty b lies nowhere.
func offsetIn(region, b []byte) (off uint64, ok bool) {
	if len(b) == 0 {
		return 0, false
	}
	// SAFETY: the addresses are only compared.
	off = uint64(uintptr(unsafe.Pointer(&b[0])) - uintptr(unsafe.Pointer(&region[0])))
	size := uint64(len(region))
	return off, off < size && uint64(len(b)) <= size-off // b before region: off wrapped
}

// Resident returns how many bytes of guest memory are in host memory now, by
// mincore(2): what the guest, or we on its behalf, touched.
func (m *Memory) Resident() (uint64, error) {
	var pages uint64
	vec := make([]byte, 1<<16)
	for _, r := range m.regions {
		for b := r.Bytes; len(b) >= pageSize; {
			n := min(len(b)/pageSize, len(vec))
			// SAFETY: b covers n whole pages of a live mapping and vec has a byte for
			// each of them; the kernel only writes vec.
			_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])),
				uintptr(n*pageSize), uintptr(unsafe.Pointer(&vec[0])))
			if errno != 0 {
				return 0, fmt.Errorf("measure guest memory at %#x: mincore: %w", uint64(r.Start), errno)
			}
			// Bits other than the lowest are "reserved for future use" in mincore(2),
			// and Count is many times quicker than a loop.
			pages += uint64(bytes.Count(vec[:n], resident))
			b = b[n*pageSize:]
		}
	}
	return pages * pageSize, nil
}

// hugeSize is the size and alignment of a huge page, in bytes: 2 MiB on x86-64.
const hugeSize = 2 << 20

// mapBytes maps n bytes of a file from off on, or of nothing when fd is -1, at a
// multiple of hugeSize: where guest and host address agree in their last 21 bits,
// the host can back 2 MiB of both with one page, and one fault makes it.
func mapBytes(fd int, off int64, n uint64, flags int) ([]byte, error) {
	room := uintptr(n) + hugeSize
	reserved, err := unix.MmapPtr(-1, 0, nil, room, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	// SAFETY: start is the first multiple of hugeSize of a range that this function
	// has just reserved, and [start, start+n) lies in it. What is left of the range
	// on both sides goes back. No pointer outlives its part of the range.
	head := -uintptr(reserved) % hugeSize
	start := unsafe.Add(reserved, head)
	end := unsafe.Add(start, uintptr(n))
	_, err = unix.MmapPtr(fd, off, start, uintptr(n), unix.PROT_READ|unix.PROT_WRITE, flags|unix.MAP_FIXED)
	if err != nil {
		return nil, errors.Join(err, unix.MunmapPtr(reserved, room))
	}
	if head > 0 {
		err = unix.MunmapPtr(reserved, head)
	}
	err = errors.Join(err, unix.MunmapPtr(end, hugeSize-head))
	return unsafe.Slice((*byte)(start), n), err
}

// mapOver maps a file from off on over b, a part of what mapBytes returned, privately.
func mapOver(b []byte, fd int, off int64) error {
	// SAFETY: b is mapped memory that this package owns and nobody uses yet: its pages
	// are replaced in place, so every slice of it stays valid.
	_, err := unix.MmapPtr(fd, off, unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_NORESERVE|unix.MAP_FIXED)
	return err
}

// unmap takes back what mapBytes returned.
func unmap(b []byte) error {
	// SAFETY: b is a whole mapping, and by Close's contract nobody has a part of it.
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)))
}

// HostAddress returns the host virtual address of the region's first byte, for
// KVM_SET_USER_MEMORY_REGION. Precondition: the region is not empty.
func (r Region) HostAddress() uint64 {
	// SAFETY: the address is handed to KVM only, which keeps it as long as the
	// VM lives; memory from mmap does not move.
	return uint64(uintptr(unsafe.Pointer(&r.Bytes[0])))
}
