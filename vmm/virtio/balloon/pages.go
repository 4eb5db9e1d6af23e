package balloon

import (
	"encoding/binary"
	"fmt"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// pageNumbers calls f with runs of consecutive pages out of the page numbers of
// a request (§5.5.6: an array of le32), each copied once.
func pageNumbers(c *queue.Chain, f func(first uint64, n uint64)) error {
	if c.WriteLen() != 0 || c.ReadLen()%4 != 0 || c.ReadLen() > 4*MaxPages {
		return fmt.Errorf("%w: page numbers in %d bytes readable, %d writable", ErrRequest, c.ReadLen(), c.WriteLen())
	}
	var raw [1024]byte
	var first, n uint64
	for off := 0; off < c.ReadLen(); {
		got := c.CopyOut(raw[:], off)
		for p := raw[:got]; len(p) > 0; p = p[4:] {
			page := uint64(binary.LittleEndian.Uint32(p))
			if n > 0 && page == first+n {
				n++
				continue
			}
			if n > 0 {
				f(first, n)
			}
			first, n = page, 1
		}
		off += got
	}
	f(first, n)
	return nil
}

// inflate takes pages out of the guest's hands (§5.5.6.1).
func (d *Device) inflate(c *queue.Chain) (uint32, error) {
	return 0, pageNumbers(c, func(first, n uint64) {
		if d.act.Memory.Discard(memory.GPA(first*PageSize), n*PageSize) == nil {
			d.counters.Inflated += n
			return
		}
		for i := range n { // page by page, for those of the run that are memory
			if d.act.Memory.Discard(memory.GPA((first+i)*PageSize), PageSize) == nil {
				d.counters.Inflated++
			} else {
				d.counters.Ignored++
			}
		}
	})
}

// deflate returns pages to the guest (§5.5.6.1): they come back as soon as it
// touches them, so there is nothing to do but to answer.
func (d *Device) deflate(c *queue.Chain) (uint32, error) {
	return 0, pageNumbers(c, func(first, n uint64) {
		for i := range n {
			if _, err := d.act.Memory.Slice(memory.GPA((first+i)*PageSize), PageSize); err == nil {
				d.counters.Deflated++
			} else {
				d.counters.Ignored++
			}
		}
	})
}

// report discards the buffers of a chain: memory that the guest does not use
// until it has the chain back (§5.5.6.7).
func (d *Device) report(c *queue.Chain) (uint32, error) {
	if c.ReadLen() != 0 {
		return 0, fmt.Errorf("%w: free pages that are read-only, %d bytes", ErrRequest, c.ReadLen())
	}
	for _, b := range c.Writable {
		if d.act.Memory.DiscardBytes(b) == nil {
			d.counters.Reported += uint64(len(b))
		} else {
			d.counters.Ignored++
		}
	}
	return 0, nil
}
