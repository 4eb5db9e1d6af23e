package blk

import (
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/iovec"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// bounceSize is the memory of a queue for guest buffers that O_DIRECT does not
// take as they are.
const bounceSize = 256 << 10

// lane is what one queue needs to work: its requests are done in turn.
type lane struct {
	dev    *Device
	queue  int
	retry  *time.Timer                        // serves again when the rate limit allows
	serve  func(*queue.Chain) (uint32, error) // l.handle
	align  alignment
	list   iovec.List
	bounce []byte   // made when first needed
	parts  [][]byte // bounce or a part of it, for list
}

func newLane(d *Device, q int, align alignment) *lane {
	l := &lane{dev: d, queue: q, align: align, parts: make([][]byte, 1)}
	l.serve = l.handle
	l.retry = time.AfterFunc(math.MaxInt64, func() { d.Kick(q) })
	l.retry.Stop()
	return l
}

// close releases the lane's memory. Precondition: the engine is stopped.
func (l *lane) close() error {
	if l.bounce == nil {
		return nil
	}
	b := l.bounce
	l.bounce = nil
	return unix.Munmap(b)
}

func newBounce() ([]byte, error) {
	b, err := unix.Mmap(-1, 0, bounceSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map a bounce buffer: %w", err)
	}
	return b, nil
}

// read fills the first n writable bytes of c from the disk at off.
func (l *lane) read(c *queue.Chain, off int64, n int) error {
	for done := 0; done < n; {
		held, bounced, err := l.pieces(c.Writable, done, n-done)
		if err != nil {
			return err
		}
		got, err := l.dev.disk.readAt(&l.list, off+int64(done))
		if err != nil {
			return fmt.Errorf("read disk: %w", err)
		}
		if bounced {
			c.CopyIn(l.bounce[:min(got, held)], done)
		}
		done += got
	}
	return nil
}

// write takes n readable bytes of c after its header to the disk at off.
func (l *lane) write(c *queue.Chain, off int64, n int) error {
	stable := l.dev.writeThrough()
	for done := 0; done < n; {
		held, bounced, err := l.pieces(c.Readable, headerLen+done, n-done)
		if err != nil {
			return err
		}
		if bounced {
			c.CopyOut(l.bounce[:held], headerLen+done)
		}
		wrote, err := l.dev.disk.writeAt(&l.list, off+int64(done), stable)
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
func (l *lane) pieces(bufs [][]byte, off, n int) (held int, bounced bool, err error) {
	held = l.list.Set(bufs, off, n)
	if l.align.memory == 1 || held == n && l.list.Aligned(l.align.memory, l.align.offset) {
		return held, false, nil
	}
	if l.bounce == nil {
		if l.bounce, err = newBounce(); err != nil {
			return 0, false, err
		}
	}
	l.parts[0] = l.bounce
	return l.list.Set(l.parts, 0, min(n, bounceSize)), true, nil
}
