package memory

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Map is New with the contents of a file that WriteTo wrote: pages are read from
// it when they are first touched, and are the host's page cache until the guest
// writes to them. The file, which need only be open for reading, is never changed
// and may be closed; nobody may write to it or shorten it while the guest runs.
//
// What Discard gives back reads as the file has it, not as zero.
func Map(f *os.File, size uint64) (*Memory, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("map guest memory: %w", err)
	}
	if info.Size() < 0 || uint64(info.Size()) != size {
		return nil, fmt.Errorf("map guest memory: %s has %d bytes, not %d", f.Name(), info.Size(), size)
	}
	return mapRegions(size, int(f.Fd()), unix.MAP_PRIVATE|unix.MAP_NORESERVE)
}

// chunk is what WriteTo looks at and writes at once, in bytes.
const chunk = 1 << 20

var zeros [pageSize]byte

// WriteTo makes f a sparse file of the memory's contents, low memory first, with
// holes for pages of zeros. f is empty. Precondition: the guest does not run.
func (m *Memory) WriteTo(f *os.File) error {
	if err := f.Truncate(int64(m.Size())); err != nil {
		return fmt.Errorf("save guest memory: %w", err)
	}
	var off int64
	for _, r := range m.regions {
		for b := r.Bytes; len(b) > 0; {
			run := nonZero(b[:min(len(b), chunk)])
			if n := run.end - run.start; n > 0 {
				if _, err := f.WriteAt(b[run.start:run.end], off+int64(run.start)); err != nil {
					return fmt.Errorf("save guest memory: %w", err)
				}
			}
			b, off = b[run.end:], off+int64(run.end)
		}
	}
	return nil
}

type span struct{ start, end int }

// nonZero is the first run of pages with something in them; without any it starts
// and ends where b does.
func nonZero(b []byte) span {
	zero := func(at int) bool { n := min(pageSize, len(b)-at); return bytes.Equal(b[at:at+n], zeros[:n]) }
	start := 0
	for start < len(b) && zero(start) {
		start += pageSize
	}
	start = min(start, len(b))
	end := start
	for end < len(b) && !zero(end) {
		end += pageSize
	}
	return span{start, min(end, len(b))}
}

// mapRegions maps size bytes of low and high memory from consecutive places of a
// file, or from nowhere when fd is -1.
func mapRegions(size uint64, fd, flags int) (*Memory, error) {
	if size == 0 || size%pageSize != 0 || size > MaxSize {
		return nil, fmt.Errorf("map guest memory: %d bytes is not a multiple of %d between %d and %d",
			size, pageSize, pageSize, MaxSize)
	}
	m := &Memory{mapped: true}
	low := min(size, uint64(HoleStart))
	off := int64(0)
	for _, r := range []struct {
		start GPA
		size  uint64
	}{{0, low}, {HoleEnd, size - low}} {
		if r.size == 0 {
			continue
		}
		b, err := mapBytes(fd, off, r.size, flags)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("map guest memory: %d bytes: %w", r.size, err), m.Close())
		}
		m.regions = append(m.regions, Region{r.start, b})
		if fd >= 0 {
			off += int64(r.size)
		}
	}
	return m, nil
}
