package mmio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// ErrSequence reports a driver that did things out of the order of §3.1.1.
var ErrSequence = errors.New("driver broke the initialization sequence")

// Transport is the register file of one device. It is a bus.Handler; all
// methods may be called from several goroutines.
type Transport struct {
	dev       virtio.Device
	mem       *memory.Memory
	interrupt func()
	offered   uint64
	sizes     []uint16

	// Set by the device, whatever the vCPU is doing: no lock.
	pending    atomic.Uint32 // InterruptStatus
	edge       atomic.Int64  // when interrupt was last called, in ns since started
	broken     atomic.Bool   // DEVICE_NEEDS_RESET
	generation atomic.Uint32
	cause      atomic.Pointer[error]
	faults     atomic.Uint64

	mu                         sync.Mutex
	status                     uint32
	accepted                   uint64 // driver features
	deviceSel, driverSel, qSel uint32
	queues                     []queueRegs
}

// queueRegs is what the driver said of one queue.
type queueRegs struct {
	layout queue.Layout
	ready  *queue.Queue // set while QueueReady is 1
}

// New puts dev behind a register file. interrupt raises the device's interrupt
// line as an edge (an irqfd); it must not block and may be called from any
// goroutine. The Transport does not own dev: close dev where it was made.
func New(dev virtio.Device, mem *memory.Memory, interrupt func()) *Transport {
	sizes := dev.QueueSizes()
	return &Transport{
		dev: dev, mem: mem, interrupt: interrupt, sizes: sizes,
		offered: dev.Features() | virtio.FeatureVersion1 | queue.FeatureIndirect | queue.FeatureEventIdx,
		queues:  make([]queueRegs, len(sizes)),
	}
}

// Queues is the number of virtqueues, each of which wants an ioeventfd.
func (t *Transport) Queues() int { return len(t.sizes) }

// Kick notifies the device of buffers in a queue, as writing the index to
// QueueNotify does. It may be called at any time.
func (t *Transport) Kick(q int) {
	if q >= 0 && q < len(t.sizes) && !t.broken.Load() {
		t.dev.Kick(q)
	}
}

// Err is why the device last needed a reset; nil when it never did.
func (t *Transport) Err() error {
	if p := t.cause.Load(); p != nil {
		return *p
	}
	return nil
}

// Faults is how often the device needed a reset because its driver broke the
// rules.
func (t *Transport) Faults() uint64 { return t.faults.Load() }

// Interrupt implements virtio.Transport.
func (t *Transport) Interrupt() { t.raise(interruptUsed) }

// ConfigChanged implements virtio.Transport.
func (t *Transport) ConfigChanged() {
	t.generation.Add(1)
	t.raise(interruptConfig)
}

// Broken implements virtio.Transport.
func (t *Transport) Broken(err error) {
	t.cause.Store(&err)
	if !t.broken.Swap(true) {
		t.faults.Add(1)
		t.raise(interruptConfig)
	}
}

// edgeGrace is how long an edge may take until the driver acknowledges it.
const edgeGrace = time.Millisecond

// started is where edges are timed from.
var started = time.Now()

// raise sets a bit of InterruptStatus and makes an edge. There is none while the
// driver has not acknowledged the bit of an earlier one, as with a line that is
// triggered by level: it looks at its queues after that (§4.2.3.3). An edge may
// get lost where the line is masked, so one that is older than edgeGrace is made
// again.
func (t *Transport) raise(bit uint32) {
	now := time.Since(started).Nanoseconds()
	if t.pending.Or(bit)&bit != 0 && now-t.edge.Load() < edgeGrace.Nanoseconds() {
		return
	}
	t.edge.Store(now)
	t.interrupt()
}

// Read implements bus.Handler. Registers are 32 bits wide and aligned
// (§4.2.2.2); anything else reads as zero. The configuration space takes any
// width.
func (t *Transport) Read(off uint64, p []byte) {
	if off >= regConfig {
		t.dev.ReadConfig(off-regConfig, p)
		return
	}
	clear(p)
	switch {
	case len(p) != 4 || off%4 != 0:
	case off == regInterruptStatus: // read at each interrupt: without the lock
		binary.LittleEndian.PutUint32(p, t.pending.Load())
	default:
		t.mu.Lock()
		defer t.mu.Unlock()
		binary.LittleEndian.PutUint32(p, t.readRegister(off))
	}
}

// Write implements bus.Handler, with the widths that Read has.
func (t *Transport) Write(off uint64, p []byte) {
	switch {
	case off >= regConfig:
		t.dev.WriteConfig(off-regConfig, p)
	case len(p) != 4 || off%4 != 0:
	case off == regQueueNotify:
		if v := binary.LittleEndian.Uint32(p); v < uint32(len(t.sizes)) {
			t.Kick(int(v))
		}
	case off == regInterruptACK:
		t.pending.And(^binary.LittleEndian.Uint32(p))
	default:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.writeRegister(off, binary.LittleEndian.Uint32(p))
	}
}

func (t *Transport) readRegister(off uint64) uint32 {
	switch off {
	case regMagicValue:
		return magic
	case regVersion:
		return version
	case regDeviceID:
		return t.dev.Type()
	case regVendorID:
		return vendorID
	case regDeviceFeatures:
		return half(t.offered, t.deviceSel)
	case regQueueNumMax:
		if t.qSel < uint32(len(t.sizes)) {
			return uint32(t.sizes[t.qSel])
		}
	case regQueueReady:
		if q := t.selected(); q != nil && q.ready != nil {
			return 1
		}
	case regStatus:
		if t.broken.Load() {
			return t.status | statusNeedsReset
		}
		return t.status
	case regConfigGeneration:
		return t.generation.Load()
	}
	if off >= regSHMLenLow && off <= regSHMBaseHigh {
		return 0xffffffff // no shared memory region has this id (§4.2.2)
	}
	return 0
}

func (t *Transport) writeRegister(off uint64, v uint32) {
	switch off {
	case regDeviceFeaturesSel:
		t.deviceSel = v
	case regDriverFeaturesSel:
		t.driverSel = v
	case regDriverFeatures:
		t.acceptFeatures(v)
	case regQueueSel:
		t.qSel = v
	case regStatus:
		t.setStatus(v)
	case regQueueReady:
		t.setReady(v)
	default:
		t.writeLayout(off, v)
	}
}

// half is the 32-bit word of features that sel selects: 0, 1, or nothing.
func half(features uint64, sel uint32) uint32 {
	if sel > 1 {
		return 0
	}
	return uint32(features >> (32 * sel))
}

func (t *Transport) acceptFeatures(v uint32) {
	if t.status&statusDriver == 0 || t.status&statusFeaturesOK != 0 {
		t.Broken(fmt.Errorf("write features in status %#x: %w", t.status, ErrSequence))
		return
	}
	if t.driverSel > 1 {
		return
	}
	shift := 32 * t.driverSel
	t.accepted = t.accepted&^(0xffffffff<<shift) | uint64(v)<<shift
}

// selected is the queue that QueueSel names, or nil.
func (t *Transport) selected() *queueRegs {
	if t.qSel >= uint32(len(t.queues)) {
		return nil
	}
	return &t.queues[t.qSel]
}

// writeLayout sets a part of the selected queue's layout. A ready queue's
// layout does not change (§4.2.2.2).
func (t *Transport) writeLayout(off uint64, v uint32) {
	q := t.selected()
	if q == nil || q.ready != nil {
		return
	}
	low := func(g memory.GPA) memory.GPA { return g&^0xffffffff | memory.GPA(v) }
	high := func(g memory.GPA) memory.GPA { return g&0xffffffff | memory.GPA(v)<<32 }
	switch l := &q.layout; off {
	case regQueueNum:
		l.Size = v
	case regQueueDescLow:
		l.Desc = low(l.Desc)
	case regQueueDescHigh:
		l.Desc = high(l.Desc)
	case regQueueDriverLow:
		l.Avail = low(l.Avail)
	case regQueueDriverHigh:
		l.Avail = high(l.Avail)
	case regQueueDeviceLow:
		l.Used = low(l.Used)
	case regQueueDeviceHigh:
		l.Used = high(l.Used)
	}
}

// setReady takes QueueReady. Queues are made after the features are agreed on
// and before the driver is ready (§3.1.1, step 7).
func (t *Transport) setReady(v uint32) {
	q := t.selected()
	if q == nil || (v == 0 && q.ready == nil) {
		return
	}
	if t.status&(statusFeaturesOK|statusDriverOK) != statusFeaturesOK {
		t.Broken(fmt.Errorf("set QueueReady of queue %d in status %#x: %w", t.qSel, t.status, ErrSequence))
		return
	}
	q.ready = nil
	if v == 0 {
		return
	}
	ready, err := queue.New(t.mem, q.layout, t.sizes[t.qSel], t.accepted)
	if err != nil {
		t.Broken(fmt.Errorf("set QueueReady of queue %d: %w", t.qSel, err))
		return
	}
	q.ready = ready
}
