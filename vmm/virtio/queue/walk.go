package queue

import (
	"encoding/binary"

	"github.com/duplex-run/duplex/vmm/memory"
)

// Descriptor flags (§2.7.5).
const (
	flagNext     = 1
	flagWrite    = 2
	flagIndirect = 4
)

const descSize = 16

// descriptor is the host's copy of one table entry (§2.7.5).
type descriptor struct {
	addr  memory.GPA
	len   uint32
	flags uint16
	next  uint16
}

// table is a descriptor table: the queue's own, or an indirect one.
type table struct {
	base memory.GPA
	size uint32 // entries
}

func (q *Queue) descriptor(t table, i uint16) (descriptor, error) {
	if uint32(i) >= t.size {
		return descriptor{}, ErrIndex
	}
	var raw [descSize]byte
	if err := q.mem.ReadAt(raw[:], t.base+memory.GPA(i)*descSize); err != nil {
		return descriptor{}, err
	}
	return descriptor{
		addr:  memory.GPA(binary.LittleEndian.Uint64(raw[0:])),
		len:   binary.LittleEndian.Uint32(raw[8:]),
		flags: binary.LittleEndian.Uint16(raw[12:]),
		next:  binary.LittleEndian.Uint16(raw[14:]),
	}, nil
}

// walk fills c with the buffers of the chain that starts at head. It reads at
// most one descriptor more than the queue holds. An error is a broken rule, and
// the number is the descriptor that breaks it.
func (q *Queue) walk(c *Chain, head uint16) (uint16, error) {
	c.reset(head)
	t, i := table{q.desc, uint32(q.size)}, head
	indirect := false
	for n := 0; ; {
		d, err := q.descriptor(t, i)
		if err != nil {
			return i, err
		}
		if d.flags&flagIndirect != 0 {
			if err := q.checkIndirect(d, indirect); err != nil {
				return i, err
			}
			t, i, indirect = table{d.addr, d.len / descSize}, 0, true
			continue
		}
		if n++; n > int(q.size) {
			return i, ErrTooLong
		}
		if err := q.addBuffer(c, d); err != nil {
			return i, err
		}
		if d.flags&flagNext == 0 {
			return i, nil
		}
		i = d.next
	}
}

// checkIndirect validates the descriptor that refers to an indirect table
// (§2.7.5.3). The table's memory is checked entry by entry as it is read.
func (q *Queue) checkIndirect(d descriptor, nested bool) error {
	switch {
	case !q.indirect, nested, d.flags&flagNext != 0, d.len == 0, d.len%descSize != 0:
		return ErrIndirect
	case d.len/descSize > uint32(q.size):
		return ErrTooLong
	}
	return nil
}

func (q *Queue) addBuffer(c *Chain, d descriptor) error {
	if d.len == 0 {
		return ErrEmpty
	}
	if c.readLen+c.writeLen+uint64(d.len) >= 1<<32 {
		return ErrBytes
	}
	buf, err := q.mem.Slice(d.addr, uint64(d.len))
	if err != nil {
		return err
	}
	if d.flags&flagWrite != 0 {
		c.Writable = append(c.Writable, buf)
		c.writeLen += uint64(d.len)
		return nil
	}
	if len(c.Writable) > 0 {
		return ErrOrder
	}
	c.Readable = append(c.Readable, buf)
	c.readLen += uint64(d.len)
	return nil
}
