package blk

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/rate"
)

const (
	// SectorSize is the unit of capacity and addresses, whatever the disk (§5.2.4).
	SectorSize = 512
	// MaxRequest bounds the data of one request in bytes, so that none holds a
	// queue for long; larger ones fail with IOERR. Linux asks for 1.25 MiB at
	// most unless its administrator raises max_sectors_kb.
	MaxRequest = 64 << 20
	// MaxQueues bounds Options.Queues.
	MaxQueues = 32

	queueSize = 256
)

// Options say what a disk is.
type Options struct {
	// Path is the file or block device that Open opens. Its size must be a
	// multiple of SectorSize, and does not change while the disk is in use.
	Path string
	// ID is the disk's serial number (/sys/block/vda/serial); the guest reads
	// its first 20 bytes.
	ID string
	// ReadOnly refuses writes, and shares the file with other readers. A disk
	// that is not read-only has the file to itself: see ErrInUse.
	ReadOnly bool
	// Direct bypasses the host's page cache (O_DIRECT). The guest then sees the
	// host's block size as its own (blk_size), of which the disk's size must be a
	// multiple. Its buffers may lie anywhere.
	Direct bool
	// Queues is the number of request queues, up to MaxQueues; 0 means 1.
	Queues int
	// Limit bounds what the disk does a second, all queues together. Data of IN
	// and OUT counts as bytes, every request as an operation.
	Limit rate.Limit
}

// Device is the block device; it implements virtio.Device.
type Device struct {
	engine   virtio.Engine
	disk     disk
	size     int64
	align    alignment
	readOnly bool
	id       [idLen]byte
	config   []byte // but the writeback field
	lanes    []*lane
	limit    *rate.Limiter
	workers  workers

	wce       atomic.Bool // the config space's writeback field
	agreed    atomic.Uint64
	stopping  atomic.Bool // a reset waits for the requests under way
	isClosed  atomic.Bool
	bytesRead atomic.Uint64
	closing   sync.Once
	closeFile func() error
	closed    error
}

// BytesRead is how much the guest has read from the disk, in bytes.
func (d *Device) BytesRead() uint64 { return d.bytesRead.Load() }

// Open makes a device of the file at o.Path.
func Open(o Options) (*Device, error) {
	flags := os.O_RDWR
	if o.ReadOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(o.Path, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	d, err := New(f, o)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

// New makes a device of an open file, which must be open for writing too unless
// o.ReadOnly is set; o.Path only serves messages. The device owns the file from
// then on, but not after an error.
func New(f *os.File, o Options) (*Device, error) {
	if o.Path == "" {
		o.Path = f.Name()
	}
	if o.Queues == 0 {
		o.Queues = 1
	}
	if o.Queues < 0 || o.Queues > MaxQueues {
		return nil, fmt.Errorf("open disk %s: %d queues is not between 1 and %d", o.Path, o.Queues, MaxQueues)
	}
	file, err := openDisk(f, o.ReadOnly, o.Direct)
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", o.Path, err)
	}
	d := &Device{disk: file, size: file.size, align: file.align, readOnly: o.ReadOnly, limit: rate.New(o.Limit), closeFile: f.Close}
	d.workers.jobs = make(chan job)
	d.config = configSpace(file, o.Queues)
	d.wce.Store(true)
	copy(d.id[:], o.ID)
	for q := range o.Queues {
		d.lanes = append(d.lanes, newLane(d, q))
	}
	return d, nil
}

// Type implements virtio.Device.
func (d *Device) Type() uint32 { return virtio.TypeBlock }

// Features implements virtio.Device.
func (d *Device) Features() uint64 {
	if d.readOnly {
		return featuresReadOnly
	}
	return featuresReadWrite
}

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	sizes := make([]uint16, len(d.lanes))
	for i := range sizes {
		sizes[i] = queueSize
	}
	return sizes
}

// Activate implements virtio.Device.
func (d *Device) Activate(a virtio.Activation) error {
	if d.isClosed.Load() {
		return os.ErrClosed
	}
	d.agreed.Store(a.Features)
	d.engine.Start(a)
	return nil
}

// Kick implements virtio.Device.
func (d *Device) Kick(q int) {
	if q >= 0 && q < len(d.lanes) {
		d.engine.Serve(q, d.lanes[q].serve)
	}
}

// Reset implements virtio.Device. Requests that wait for the rate limit are
// forgotten, and large ones that move data are cut short.
func (d *Device) Reset() {
	d.stopping.Store(true)
	d.engine.Stop()
	d.stopping.Store(false)
	for _, l := range d.lanes {
		l.retry.Stop()
	}
	d.agreed.Store(0)
	d.wce.Store(true)
}

// Close implements virtio.Device.
func (d *Device) Close() error {
	d.closing.Do(func() {
		d.isClosed.Store(true)
		d.Reset()
		d.workers.stop()
		for _, l := range d.lanes {
			d.closed = errors.Join(d.closed, l.mover.close())
		}
		d.closed = errors.Join(d.closed, d.closeFile())
	})
	return d.closed
}
