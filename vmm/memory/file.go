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
	m, err := New(size)
	if err != nil {
		return nil, err
	}
	if err := m.lay(int(f.Fd())); err != nil {
		return nil, errors.Join(fmt.Errorf("map guest memory: %w", err), m.Close())
	}
	return m, nil
}

// lay maps the file over those stretches of new memory for which it has data, in
// steps of hugeSize. The rest stays as New has it: a page of a hole that is written
// to would otherwise be made twice, once in the page cache.
func (m *Memory) lay(fd int) error {
	var base int64 // of the region in the file
	for _, r := range m.regions {
		size := int64(len(r.Bytes))
		for off := int64(0); off < size; {
			start, end, err := dataIn(fd, base+off, base+size)
			if err != nil || start == end {
				if err != nil {
					return err
				}
				break
			}
			if err := mapOver(r.Bytes[start-base:end-base], fd, start); err != nil {
				return err
			}
			off = end - base
		}
		base += size
	}
	return nil
}

// dataIn finds the first stretch of a file in [from, to) that has data, rounded
// outwards to hugeSize but not beyond the range; start is end without any. from is
// a multiple of hugeSize.
func dataIn(fd int, from, to int64) (start, end int64, err error) {
	for at := from; at < to; at = end {
		data, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= to {
			return start, end, nil // nothing more
		}
		if err != nil {
			return 0, 0, err
		}
		data &^= hugeSize - 1
		if end > start && data > end {
			return start, end, nil // a hole between
		}
		if end == start {
			start = max(data, from)
		}
		end = min(data+hugeSize, to)
	}
	return start, end, nil
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
