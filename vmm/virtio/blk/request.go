package blk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// Request types (§5.2.6).
const (
	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeGetID       = 8
	typeDiscard     = 11
	typeWriteZeroes = 13
)

// Request statuses (§5.2.6).
const (
	statusOK     = 0
	statusIOErr  = 1
	statusUnsupp = 2
)

const (
	headerLen  = 16
	idLen      = 20
	segmentLen = 16

	slowBytes = 128 << 10

	flagUnmap = 1 // of a WRITE_ZEROES segment
)

// ErrRequest reports a request without room for its header or its status.
var ErrRequest = errors.New("malformed block request")

// request is the host's copy of struct virtio_blk_req's fixed part, and how much
// data comes with it.
type request struct {
	kind   uint32
	sector uint64
	out    int // bytes from the driver after the header
	in     int // bytes to the driver before the status
}

// parse takes the request out of the chain, whose last writable byte is for the
// status.
func parse(c *queue.Chain) (request, error) {
	var raw [headerLen]byte
	if c.CopyOut(raw[:], 0) < headerLen || c.WriteLen() < 1 {
		return request{}, fmt.Errorf("%w: %d bytes readable, %d writable", ErrRequest, c.ReadLen(), c.WriteLen())
	}
	return request{
		kind:   binary.LittleEndian.Uint32(raw[0:]),
		sector: binary.LittleEndian.Uint64(raw[8:]),
		out:    c.ReadLen() - headerLen,
		in:     c.WriteLen() - 1,
	}, nil
}

// moves is how many bytes of the disk's data the request is about.
func (r request) moves() int {
	switch r.kind {
	case typeIn:
		return min(r.in, MaxRequest)
	case typeOut:
		return min(r.out, MaxRequest)
	default:
		return 0
	}
}

// slow says whether the request may take so long that the driver had better
// hear of those before it first.
func (r request) slow() bool {
	return r.kind != typeGetID && r.kind > typeOut || r.moves() >= slowBytes
}

// mayWait says whether the request may have to wait for the disk.
func (d *Device) mayWait(r request) bool {
	switch r.kind {
	case typeIn:
		return true
	case typeOut:
		return !d.readOnly && (d.align.direct() || d.writeThrough())
	case typeFlush, typeDiscard, typeWriteZeroes:
		return !d.readOnly
	default:
		return false
	}
}

// run executes a request. Its result is the used length: zero when the request
// failed, since then only the status byte is sure to be written.
func (m *mover) run(j *job) uint32 {
	status, n := m.execute(j)
	j.c.CopyIn([]byte{status}, j.c.WriteLen()-1)
	if status != statusOK {
		return 0
	}
	return uint32(n) + 1
}

// execute returns the status, and how many bytes of data went to the driver.
func (m *mover) execute(j *job) (status byte, n int) {
	d, c, r := m.dev, j.c, j.r
	var err error
	switch r.kind {
	case typeIn:
		off, ok := d.span(r.sector, r.in)
		if !ok {
			return statusIOErr, 0
		}
		n, err = m.read(c, off, j.done, r.in, true)
	case typeOut:
		off, ok := d.span(r.sector, r.out)
		if !ok || d.readOnly {
			return statusIOErr, 0
		}
		err = m.write(c, off, r.out)
	case typeFlush:
		if !d.readOnly {
			err = d.disk.sync()
		}
	case typeGetID:
		if r.in < idLen {
			return statusIOErr, 0
		}
		n = c.CopyIn(d.id[:], 0)
	case typeDiscard, typeWriteZeroes:
		return d.segments(c, r), 0
	default:
		return statusUnsupp, 0
	}
	if err != nil {
		return statusIOErr, 0
	}
	return statusOK, n
}

// span is the place of n bytes on the disk, if a request may have them.
func (d *Device) span(sector uint64, n int) (off int64, ok bool) {
	if n < 0 || n > MaxRequest || n%SectorSize != 0 {
		return 0, false
	}
	return d.place(sector, uint64(n)/SectorSize)
}

// place is the offset of sectors, if they are all on the disk.
func (d *Device) place(sector, sectors uint64) (off int64, ok bool) {
	capacity := uint64(d.size) / SectorSize
	if sector > capacity || sectors > capacity-sector {
		return 0, false
	}
	return int64(sector) * SectorSize, true
}

// segment is the host's copy of struct virtio_blk_discard_write_zeroes.
type segment struct {
	off, n int64
	unmap  bool
}

// segments executes DISCARD and WRITE_ZEROES (§5.2.6): all segments are checked
// before the first is done.
func (d *Device) segments(c *queue.Chain, r request) byte {
	if d.readOnly {
		return statusIOErr
	}
	limit := maxDiscardSegments
	if r.kind == typeWriteZeroes {
		limit = maxZeroSegments
	}
	if r.out == 0 || r.out%segmentLen != 0 || r.out > limit*segmentLen {
		return statusIOErr
	}
	var raw [maxDiscardSegments * segmentLen]byte
	var list [maxDiscardSegments]segment
	c.CopyOut(raw[:r.out], headerLen)
	count := r.out / segmentLen
	for i := range count {
		s, status := d.segment(raw[i*segmentLen:], r.kind)
		if status != statusOK {
			return status
		}
		list[i] = s
	}
	for _, s := range list[:count] {
		if d.wipe(s, r.kind) != nil {
			return statusIOErr
		}
	}
	if d.writeThrough() && d.disk.sync() != nil {
		return statusIOErr
	}
	return statusOK
}

// segment checks one segment.
func (d *Device) segment(raw []byte, kind uint32) (segment, byte) {
	sectors, flags := binary.LittleEndian.Uint32(raw[8:]), binary.LittleEndian.Uint32(raw[12:])
	limit, allowed := uint32(maxZeroSectors), uint32(flagUnmap)
	if kind == typeDiscard {
		limit, allowed = maxDiscardSectors, 0
	}
	if flags&^allowed != 0 {
		return segment{}, statusUnsupp // §5.2.6.2
	}
	off, ok := d.place(binary.LittleEndian.Uint64(raw[0:]), uint64(sectors))
	if !ok || sectors > limit {
		return segment{}, statusIOErr
	}
	return segment{off, int64(sectors) * SectorSize, flags&flagUnmap != 0}, statusOK
}

func (d *Device) wipe(s segment, kind uint32) error {
	switch {
	case s.n == 0:
		return nil
	case kind == typeDiscard:
		return d.disk.discard(s.off, s.n)
	default:
		return d.disk.zero(s.off, s.n, s.unmap)
	}
}
