package memory

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// GPA is a guest physical address.
type GPA uint64

const (
	// HoleStart is the end of low memory: the hole for memory-mapped devices
	// runs from here to HoleEnd, and memory beyond it continues at HoleEnd.
	HoleStart GPA = 3 << 30
	// HoleEnd is 4 GiB.
	HoleEnd GPA = 4 << 30
	// MaxSize bounds what New maps, in bytes (1 TiB).
	MaxSize uint64 = 1 << 40

	pageSize = 4096
)

// Errors that an *Error wraps.
var (
	ErrOutOfRange = errors.New("outside guest memory")
	ErrMisaligned = errors.New("misaligned")
)

// Error is an access that guest memory refused.
type Error struct {
	GPA GPA
	Len uint64 // bytes
	Err error  // ErrOutOfRange or ErrMisaligned
}

func (e *Error) Error() string {
	return fmt.Sprintf("guest memory at %#x, %d bytes: %v", uint64(e.GPA), e.Len, e.Err)
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// Region is a range of guest memory and the host bytes that back it.
type Region struct {
	Start GPA
	Bytes []byte
}

// Memory is guest physical memory. Its methods are safe for concurrent use,
// except Close, which must come after every other use.
type Memory struct {
	regions []Region // by Start, disjoint, never empty
	mapped  bool     // Bytes come from mmap and go back by munmap
}

// New maps size bytes of guest memory, a multiple of 4096 of at most MaxSize:
// [0, HoleStart), and what does not fit there from HoleEnd on. Pages are made
// when they are first touched: 2 MiB at once, where the host has huge pages.
func New(size uint64) (*Memory, error) {
	if size == 0 || size%pageSize != 0 || size > MaxSize {
		return nil, fmt.Errorf("map guest memory: %d bytes is not a multiple of %d between %d and %d",
			size, pageSize, pageSize, MaxSize)
	}
	m := &Memory{mapped: true}
	low := min(size, uint64(HoleStart))
	for _, r := range []struct {
		start GPA
		size  uint64
	}{{0, low}, {HoleEnd, size - low}} {
		if r.size == 0 {
			continue
		}
		b, err := mapBytes(-1, 0, r.size, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("map guest memory: %d bytes: %w", r.size, err), m.Close())
		}
		// Not every kernel has huge pages, and whoever runs it may not want them.
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
		m.regions = append(m.regions, Region{r.start, b})
	}
	return m, nil
}

// FromRegions makes a Memory of regions that the caller owns: in ascending
// order, disjoint, not empty, each starting at a multiple of 8 (as host bytes
// from make do) and a multiple of 8 bytes long.
func FromRegions(regions ...Region) (*Memory, error) {
	var end uint64
	for i, r := range regions {
		start, n := uint64(r.Start), uint64(len(r.Bytes))
		switch {
		case n == 0 || n%8 != 0 || start%8 != 0 || !aligned(r.Bytes):
			return nil, fmt.Errorf("region %d at %#x, %d bytes: %w", i, start, n, ErrMisaligned)
		case start+n < start:
			return nil, fmt.Errorf("region %d at %#x, %d bytes: %w", i, start, n, ErrOutOfRange)
		case start < end:
			return nil, fmt.Errorf("region %d at %#x: overlaps or precedes the one before", i, start)
		}
		end = start + n
	}
	return &Memory{regions: append([]Region(nil), regions...)}, nil
}

// Regions returns the regions in ascending order. The slice is a copy, the
// bytes are not.
func (m *Memory) Regions() []Region { return append([]Region(nil), m.regions...) }

// Size returns how many bytes of memory the guest has.
func (m *Memory) Size() uint64 {
	var n uint64
	for _, r := range m.regions {
		n += uint64(len(r.Bytes))
	}
	return n
}

// Close unmaps what New mapped. It is idempotent. Slices taken from m must not
// be touched afterwards: doing so faults.
func (m *Memory) Close() error {
	var errs error
	if m.mapped {
		for _, r := range m.regions {
			errs = errors.Join(errs, unmap(r.Bytes))
		}
	}
	m.regions = nil
	return errs
}

// find returns the n host bytes behind [gpa, gpa+n). It is the only place that
// turns a guest address into host memory.
func (m *Memory) find(gpa GPA, n uint64) ([]byte, error) {
	for i := range m.regions {
		r := &m.regions[i]
		size := uint64(len(r.Bytes))
		if gpa < r.Start {
			break
		}
		// off cannot wrap (gpa >= Start), and size-off cannot once off <= size.
		if off := uint64(gpa - r.Start); off < size && n <= size-off {
			return r.Bytes[off : off+n : off+n], nil
		}
	}
	return nil, &Error{gpa, n, ErrOutOfRange}
}
