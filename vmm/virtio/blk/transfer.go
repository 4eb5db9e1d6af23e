package blk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/iovec"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// chunk bounds what one system call moves, in bytes: a reset waits for no more.
const chunk = 2 << 20

// errStopped ends a large request when the device is reset.
var errStopped = errors.New("the device is being reset")

// bounceSize bounds the memory for guest buffers that O_DIRECT does not take as
// they are, of each queue and each worker.
const bounceSize = 256 << 10

// mover moves the data of one request at a time.
type mover struct {
	dev    *Device
	list   iovec.List
	bounce []byte   // made when first needed
	parts  [][]byte // bounce, for list
}

func newMover(d *Device) mover { return mover{dev: d, parts: make([][]byte, 1)} }

// close releases the bounce buffer. Precondition: no request is under way.
func (m *mover) close() error {
	if m.bounce == nil {
		return nil
	}
	b := m.bounce
	m.bounce = nil
	return unix.Munmap(b)
}

func newBounce() ([]byte, error) {
	b, err := unix.Mmap(-1, 0, bounceSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map a bounce buffer: %w", err)
	}
	return b, nil
}

// read fills writable bytes done to n of c from the disk, whose byte off is the
// chain's first, and returns how far it came.
func (m *mover) read(c *queue.Chain, off int64, done, n int, wait bool) (int, error) {
	for done < n {
		held, bounced, err := m.pieces(c.Writable, done, n-done)
		if err != nil {
			return done, err
		}
		got, err := m.dev.disk.readAt(&m.list, off+int64(done), wait)
		if err != nil {
			return done, fmt.Errorf("read disk: %w", err)
		}
		if bounced {
			c.CopyIn(m.bounce[:min(got, held)], done)
		}
		done += got
		m.dev.bytesRead.Add(uint64(got))
	}
	return done, nil
}

// write takes n readable bytes of c after its header to the disk at off.
func (m *mover) write(c *queue.Chain, off int64, n int) error {
	stable := m.dev.writeThrough()
	for done := 0; done < n; {
		held, bounced, err := m.pieces(c.Readable, headerLen+done, n-done)
		if err != nil {
			return err
		}
		if bounced {
			c.CopyOut(m.bounce[:held], headerLen+done)
		}
		wrote, err := m.dev.disk.writeAt(&m.list, off+int64(done), stable)
		if err != nil {
			return fmt.Errorf("write disk: %w", err)
		}
		done += wrote
	}
	return nil
}

// pieces puts bytes off to off+n of bufs into the list, as many as one system
// call takes, and returns how many. Where O_DIRECT does not take them as they
// are, the list holds the bounce buffer instead.
func (m *mover) pieces(bufs [][]byte, off, n int) (held int, bounced bool, err error) {
	if m.dev.stopping.Load() {
		return 0, false, errStopped
	}
	n = min(n, chunk)
	held = m.list.Set(bufs, off, n)
	a := m.dev.align
	if !a.direct() || held == n && m.list.Aligned(a.memory, a.offset) {
		return held, false, nil
	}
	if m.bounce == nil {
		if m.bounce, err = newBounce(); err != nil {
			return 0, false, err
		}
	}
	m.parts[0] = m.bounce
	return m.list.Set(m.parts, 0, min(n, bounceSize)), true, nil
}
