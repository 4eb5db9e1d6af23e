// Package virtio says what a virtio device is to the rest of the monitor.
//
// The layers, from the guest's side inwards (virtio 1.2):
//
//	mmio      the register file of §4.2 and the status state machine of §2.1
//	queue     split virtqueues in guest memory (§2.7)
//	iovec     vectored input and output on the buffers of a chain
//	rate      limits on operations and bytes a second
//	blk, ...  one package a device type (§5), each a Device
//	virtqtest a mock driver: tests and fuzzers drive devices as a guest would
//
// To add a device, implement Device: answer Type, Features, QueueSizes and the
// configuration space, and give the Activation to an Engine, which serves a
// queue when it is kicked:
//
//	func (d *Device) Activate(a virtio.Activation) error { d.engine.Start(a); return nil }
//	func (d *Device) Kick(q int)                         { d.engine.Serve(q, d.handle) }
//	func (d *Device) Reset()                             { d.engine.Stop() }
//
// handle gets one request and returns how many bytes it wrote. It may keep the
// request (queue.Later, then Engine.Finish or Complete) or leave it to be taken
// again (queue.Again, then Engine.Serve). An error of the driver goes to
// Transport.Broken.
package virtio

import (
	"errors"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// Device types (§5).
const (
	TypeNet     = 1
	TypeBlock   = 2
	TypeConsole = 3
	TypeEntropy = 4
	TypeBalloon = 5
	TypeVsock   = 19
	TypeFS      = 26
)

// FeatureVersion1 is VIRTIO_F_VERSION_1 (§6): not a legacy device. The
// transport offers it, and refuses a driver that does not accept it.
const FeatureVersion1 = 1 << 32

// Device is a virtio device behind a transport.
//
// Type, Features and QueueSizes are constant. Activate, Reset and Close are
// called one at a time; Kick, ReadConfig and WriteConfig may be called at any
// moment, from several goroutines, also before Activate and after Close.
type Device interface {
	// Type is the device type, one of the Type constants.
	Type() uint32
	// Features are the device's own feature bits (§2.2); the transport adds
	// those of virtqueues and FeatureVersion1.
	Features() uint64
	// QueueSizes has the maximum size of each virtqueue, a power of two.
	QueueSizes() []uint16
	// ReadConfig fills p from the configuration space at offset (§2.5). Any
	// offset may come; bytes past the end read as zero.
	ReadConfig(offset uint64, p []byte)
	// WriteConfig takes a driver's write to the configuration space. Fields the
	// driver must not write are left alone.
	WriteConfig(offset uint64, p []byte)
	// Activate starts the device (DRIVER_OK, §3.1.1). After an error the device
	// is as it was.
	Activate(Activation) error
	// Kick says that the driver made buffers available in a queue. It works on
	// the caller's goroutine and returns when the queue is empty or the device
	// cannot go on. Without an Activation it does nothing.
	Kick(queue int)
	// Reset stops the device (§2.4): when it returns the device touches guest
	// memory no more, until the next Activate.
	Reset()
	// Close resets the device and releases what it holds. It is idempotent.
	Close() error
}

// Saver is a Device that can be saved with its guest and restored.
type Saver interface {
	Device
	// Save ends the device's work like Reset, but requests that it has taken are
	// finished first. It returns what the device has to know to go on beside its
	// queues and features, in an encoding of its own. The device is of no use
	// afterwards.
	Save() ([]byte, error)
	// Restore gives a new device what Save returned, and with it, if the driver
	// was ready, the Activation to go on with: then it is called in the place of
	// Activate. own is not to be trusted.
	Restore(own []byte, a *Activation) error
}

// ErrOwnState reports a device state that Save does not return.
var ErrOwnState = errors.New("malformed state of a device")

// Activation is what a device gets when its driver is ready.
type Activation struct {
	// Features are those that device and driver agreed on.
	Features uint64
	// Queues has one entry a virtqueue; nil where the driver made none.
	Queues []*queue.Queue
	// Transport is how the device reaches its driver.
	Transport Transport
	// Memory is the guest's, which the queues lie in.
	Memory *memory.Memory
}

// Transport is what a device asks of its transport. The methods do not block,
// and may be called with the device's own locks held.
type Transport interface {
	// Interrupt sends a used buffer notification (§2.3).
	Interrupt()
	// ConfigChanged sends a configuration change notification (§2.3).
	ConfigChanged()
	// Broken reports that the driver broke the rules and the device has
	// stopped: the status shows DEVICE_NEEDS_RESET (§2.1.2).
	Broken(err error)
}
