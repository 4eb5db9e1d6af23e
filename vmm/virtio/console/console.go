package console

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

const (
	// BufferSize bounds the output that waits for Out, in bytes; as much again
	// may be in the Write under way.
	BufferSize = 64 << 10
	// InputSize bounds the input that waits for the guest, in bytes.
	InputSize = 4 << 10
	// CloseWait bounds how long Close waits for Out to take what is buffered.
	CloseWait = 50 * time.Millisecond
)

// Feature bits (§5.3.3). VIRTIO_CONSOLE_F_MULTIPORT is not offered: one port.
const (
	featureSize      = 1 << 0 // VIRTIO_CONSOLE_F_SIZE
	featureEmergency = 1 << 2 // VIRTIO_CONSOLE_F_EMERG_WRITE
)

// The virtqueues (§5.3.2).
const (
	queueRX = 0 // to the guest
	queueTX = 1 // from the guest
)

// emergencyOffset is emerg_wr in the configuration space (§5.3.4).
const emergencyOffset = 8

// ErrBuffer reports a buffer of the wrong direction in a queue (§5.3.6.1).
var ErrBuffer = errors.New("malformed console buffer")

// Options says what the console is connected to.
type Options struct {
	// In is what the guest reads; nil gives it nothing. A Read under way when
	// the device is closed is not interrupted: close In, or its data is lost.
	In io.Reader
	// Out gets what the guest prints; nil discards it. After an error of Write
	// the rest is discarded.
	Out io.Writer
	// Cols and Rows are the size of the terminal in characters; 0 is unknown.
	Cols, Rows uint16
}

// Device is the console device; it implements virtio.Device. All methods may be
// called from several goroutines.
type Device struct {
	in      io.Reader
	out     io.Writer
	written chan struct{} // closed when the writer ended

	mu         sync.Mutex
	wake       *sync.Cond // the goroutines wait on it
	act        *virtio.Activation
	started    bool
	closed     bool
	cols, rows uint16

	output []byte // from the guest, for Out
	tx     queue.Chain
	txDone int // bytes of tx that are in output
	txHeld bool

	input []byte // from In, for the guest
}

// New makes a console device. It reads and writes from its first activation on.
func New(o Options) *Device {
	if o.Out == nil {
		o.Out = io.Discard
	}
	d := &Device{in: o.In, out: o.Out, cols: o.Cols, rows: o.Rows, written: make(chan struct{})}
	d.wake = sync.NewCond(&d.mu)
	return d
}

// Type implements virtio.Device.
func (d *Device) Type() uint32 { return virtio.TypeConsole }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return featureSize | featureEmergency }

// QueueSizes implements virtio.Device: receive, transmit.
func (d *Device) QueueSizes() []uint16 { return []uint16{64, 64} }

// ReadConfig implements virtio.Device (§5.3.4).
func (d *Device) ReadConfig(offset uint64, p []byte) {
	d.mu.Lock()
	le := binary.LittleEndian
	space := le.AppendUint16(le.AppendUint16(nil, d.cols), d.rows)
	d.mu.Unlock()
	space = append(space, make([]byte, 8)...) // max_nr_ports, emerg_wr
	virtio.ReadConfigSpace(space, offset, p)
}

// WriteConfig implements virtio.Device: a write to emerg_wr prints its low byte,
// in any state of the device (§5.3.4). It is dropped when the buffer is full.
func (d *Device) WriteConfig(offset uint64, p []byte) {
	if offset != emergencyOffset || len(p) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.output) >= BufferSize {
		return
	}
	d.start()
	d.output = append(d.output, p[0])
	d.wake.Broadcast()
}

// Resize tells the guest that the terminal has another size, in characters.
func (d *Device) Resize(cols, rows uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cols == cols && d.rows == rows {
		return
	}
	d.cols, d.rows = cols, rows
	if d.act != nil && d.act.Features&featureSize != 0 {
		d.act.Transport.ConfigChanged()
	}
}

// Activate implements virtio.Device.
func (d *Device) Activate(a virtio.Activation) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("console: the device is closed")
	}
	d.act = &a
	d.start()
	return nil
}

// start runs the goroutines, once.
func (d *Device) start() {
	if d.started {
		return
	}
	d.started = true
	d.output = make([]byte, 0, BufferSize)
	go d.write()
	if d.in != nil {
		go d.read()
	}
}

// Kick implements virtio.Device.
func (d *Device) Kick(q int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch q {
	case queueRX:
		d.check(d.feed())
	case queueTX:
		d.check(d.drain())
	}
}

// check stops the device after a violation by the driver.
func (d *Device) check(err error) {
	if err != nil {
		d.act.Transport.Broken(err)
		d.forget()
	}
}

// forget lets go of guest memory.
func (d *Device) forget() {
	d.act, d.txHeld = nil, false
	d.tx = queue.Chain{}
}

// Reset implements virtio.Device.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget()
}

// Close implements virtio.Device. What is buffered goes to Out if that takes it
// within CloseWait. A Write to Out or a Read from In that hangs outlives Close.
func (d *Device) Close() error {
	d.mu.Lock()
	d.forget()
	d.closed = true
	started := d.started
	d.wake.Broadcast()
	d.mu.Unlock()
	if !started {
		return nil
	}
	limit := time.NewTimer(CloseWait)
	defer limit.Stop()
	select {
	case <-d.written:
	case <-limit.C:
	}
	return nil
}

// queue returns queue i while there is a driver that made it, or nil.
func (d *Device) queue(i int) *queue.Queue {
	if d.act == nil {
		return nil
	}
	return d.act.Queues[i]
}

// notify ends a round on q: it interrupts the driver if that wants it.
func (d *Device) notify(q *queue.Queue) error {
	wants, err := q.WantsInterrupt()
	if wants {
		d.act.Transport.Interrupt()
	}
	return err
}

func direction(c *queue.Chain) error {
	return fmt.Errorf("%w: %d bytes readable, %d writable", ErrBuffer, c.ReadLen(), c.WriteLen())
}
