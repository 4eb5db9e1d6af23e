package blk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// Request types (§5.2.6).
const (
	typeIn    = 0
	typeOut   = 1
	typeFlush = 4
	typeGetID = 8
)

// Request statuses (§5.2.6).
const (
	statusOK     = 0
	statusIOErr  = 1
	statusUnsupp = 2
)

const (
	headerLen = 16
	idLen     = 20
	maxIovecs = 1024 // IOV_MAX of preadv(2)
)

// ErrRequest reports a request without room for its header or its status.
var ErrRequest = errors.New("malformed block request")

// header is the host's copy of struct virtio_blk_req's fixed part.
type header struct {
	kind   uint32
	sector uint64
}

// parse takes the header out of the chain and returns how many writable bytes
// the request's data has; the status byte comes after them.
func parse(c *queue.Chain) (header, int, error) {
	var raw [headerLen]byte
	if c.CopyOut(raw[:], 0) < headerLen || c.WriteLen() < 1 {
		return header{}, 0, fmt.Errorf("%w: %d bytes readable, %d writable", ErrRequest, c.ReadLen(), c.WriteLen())
	}
	return header{
		kind:   binary.LittleEndian.Uint32(raw[0:]),
		sector: binary.LittleEndian.Uint64(raw[8:]),
	}, c.WriteLen() - 1, nil
}

// handle executes one request. Its result is the used length: zero when the
// request failed, since then only the status byte is sure to be written.
func (d *Device) handle(c *queue.Chain) (uint32, error) {
	h, n, err := parse(c)
	if err != nil {
		return 0, err
	}
	status := byte(statusUnsupp)
	switch h.kind {
	case typeIn:
		status = d.read(c, h.sector, n)
	case typeOut:
		status = statusIOErr // read-only (§5.2.6.2)
	case typeFlush:
		status, n = statusOK, 0
	case typeGetID:
		status = statusIOErr
		if n >= idLen {
			c.CopyIn(d.id[:], 0)
			status, n = statusOK, idLen
		}
	}
	c.CopyIn([]byte{status}, c.WriteLen()-1)
	if status != statusOK {
		return 0, nil
	}
	return uint32(n) + 1, nil
}

// read fills the first n writable bytes from the disk.
func (d *Device) read(c *queue.Chain, sector uint64, n int) byte {
	if n%SectorSize != 0 || n > MaxRequest {
		return statusIOErr
	}
	capacity := uint64(d.size) / SectorSize
	if sector > capacity || uint64(n)/SectorSize > capacity-sector {
		return statusIOErr
	}
	for off := 0; off < n; {
		d.iov = queue.Part(d.iov[:0], c.Writable, off, n-off)
		got, err := preadv(int(d.file.Fd()), d.iov[:min(len(d.iov), maxIovecs)], int64(sector)*SectorSize+int64(off))
		if err != nil {
			return statusIOErr
		}
		off += got
	}
	return statusOK
}

// preadv reads once, at least one byte.
func preadv(fd int, iov [][]byte, off int64) (int, error) {
	for {
		n, err := unix.Preadv(fd, iov, off)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("read disk: %w", err)
		case n == 0:
			return 0, fmt.Errorf("read disk: %w", io.ErrUnexpectedEOF)
		default:
			return n, nil
		}
	}
}
