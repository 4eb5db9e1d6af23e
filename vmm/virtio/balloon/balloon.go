package balloon

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// PageSize is the size of the pages that a balloon counts in, in bytes (§5.5.6:
// always 4096).
const PageSize = 4096

// MaxPages bounds the page numbers of one inflate or deflate request. Linux
// sends 256.
const MaxPages = 4096

// Feature bits (§5.5.3).
const (
	featureMustTellHost = 1 << 0
	featureStats        = 1 << 1
	featureDeflateOnOOM = 1 << 2
	featureReporting    = 1 << 5
)

// The virtqueues (§5.5.2).
const (
	queueInflate   = 0
	queueDeflate   = 1
	queueStats     = 2
	queueFreePages = 3 // its feature is not offered
	queueReporting = 4
	queueCount     = 5
)

// ErrRequest reports a request of a form that §5.5.6 does not know.
var ErrRequest = errors.New("malformed balloon request")

// Options says what the balloon starts with.
type Options struct {
	// Pages is how many pages the guest is asked for as soon as it is up.
	Pages uint32
}

// Counters counts what the guest did since the device was made, over resets.
type Counters struct {
	Inflated uint64 // pages that came into the balloon
	Deflated uint64 // pages that left it
	Reported uint64 // bytes reported as free
	Ignored  uint64 // page numbers that are no memory, and ranges the host kept
}

// Device is the balloon device; it implements virtio.Device. All methods may be
// called from several goroutines.
type Device struct {
	mu        sync.Mutex
	act       *virtio.Activation
	closed    bool
	reporting int // index of the reporting queue; -1 without one
	target    uint32
	actual    uint32
	counters  Counters
	stats     stats
}

// New makes a balloon device.
func New(o Options) *Device {
	return &Device{target: o.Pages, stats: stats{changed: make(chan struct{})}}
}

// Type implements virtio.Device.
func (d *Device) Type() uint32 { return virtio.TypeBalloon }

// Features implements virtio.Device.
func (d *Device) Features() uint64 {
	return featureMustTellHost | featureStats | featureDeflateOnOOM | featureReporting
}

// QueueSizes implements virtio.Device. Linux reports 32 ranges at once, and does
// without a balloon where the queue does not hold them: every queue that may be
// the reporting one does (see reportingQueue).
func (d *Device) QueueSizes() []uint16 { return []uint16{32, 32, 64, 64, 64} }

// ReadConfig implements virtio.Device (§5.5.4).
func (d *Device) ReadConfig(offset uint64, p []byte) {
	d.mu.Lock()
	le := binary.LittleEndian
	space := le.AppendUint32(le.AppendUint32(nil, d.target), d.actual)
	d.mu.Unlock()
	space = append(space, make([]byte, 8)...) // free_page_hint_cmd_id, poison_val
	virtio.ReadConfigSpace(space, offset, p)
}

// WriteConfig implements virtio.Device: the driver says how many pages the
// balloon has. It is the guest's word, and only shown.
func (d *Device) WriteConfig(offset uint64, p []byte) {
	const actualOffset = 4
	if offset != actualOffset || len(p) != 4 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.actual = binary.LittleEndian.Uint32(p)
}

// Resize asks the guest to make the balloon pages large: so many pages of
// PageSize bytes fewer has the guest then. It does not wait for the guest, which
// may never comply; see Pages.
func (d *Device) Resize(pages uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.target == pages {
		return
	}
	d.target = pages
	if d.act != nil {
		d.act.Transport.ConfigChanged()
	}
}

// Pages returns the balloon's size in pages: what was asked for, and what the
// guest says it is.
func (d *Device) Pages() (target, actual uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.target, d.actual
}

// Counters returns what the guest did so far.
func (d *Device) Counters() Counters {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counters
}

// Activate implements virtio.Device. Inflate and deflate queue must be there.
func (d *Device) Activate(a virtio.Activation) error {
	if a.Queues[queueInflate] == nil || a.Queues[queueDeflate] == nil {
		return errors.New("balloon: driver set up no inflate or deflate queue")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return net.ErrClosed
	}
	d.act = &a
	d.reporting = reportingQueue(a)
	return nil
}

// reportingQueue finds the queue of free page reporting. §5.5.2 numbers it 4.
// Linux numbers the queues without gaps instead, on most transports and in most
// versions: the queue of a feature that was not agreed on is the next one's.
func reportingQueue(a virtio.Activation) int {
	i := queueReporting
	if a.Queues[i] == nil {
		i = queueFreePages
		if a.Features&featureStats == 0 {
			i = queueStats
		}
	}
	if a.Features&featureReporting == 0 || a.Queues[i] == nil {
		return -1
	}
	return i
}

// Kick implements virtio.Device.
func (d *Device) Kick(q int) {
	for d.serve(q) {
	}
}

// serve handles one queue's worth of requests with the lock held, so that a
// guest which never stops making them cannot keep Reset waiting.
func (d *Device) serve(i int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.act == nil || i < 0 || i >= queueCount || d.act.Queues[i] == nil {
		return false
	}
	var handle func(*queue.Chain) (uint32, error)
	switch {
	case i == queueInflate:
		handle = d.inflate
	case i == queueDeflate:
		handle = d.deflate
	case i == d.reporting:
		handle = d.report
	case i == queueStats && d.act.Features&featureStats != 0:
		d.check(d.takeStats())
		return false
	default:
		return false
	}
	more, interrupt, err := d.act.Queues[i].Serve(handle)
	if interrupt {
		d.act.Transport.Interrupt()
	}
	d.check(err)
	return more && err == nil
}

// check stops the device after a violation by the driver.
func (d *Device) check(err error) {
	if err != nil {
		d.act.Transport.Broken(err)
		d.stop()
	}
}

func (d *Device) stop() {
	d.act = nil
	d.stats.stop()
}

// Reset implements virtio.Device: the balloon is empty then.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop()
	d.actual = 0
}

// Close implements virtio.Device.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.stop()
	return nil
}
