package virtqtest

import (
	"encoding/binary"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/mmio"
)

// Guest memory of a Driver: LowSize bytes from 0 and HighSize bytes beyond the
// hole below 4 GiB.
const (
	LowSize  = 4 << 20
	HighSize = 8 << 10
)

// The registers that tests poke at (§4.2.2).
const (
	RegMagic             = 0x000
	RegVersion           = 0x004
	RegDeviceID          = 0x008
	RegDeviceFeatures    = 0x010
	RegDeviceFeaturesSel = 0x014
	RegDriverFeatures    = 0x020
	RegDriverFeaturesSel = 0x024
	RegQueueSel          = 0x030
	RegQueueNumMax       = 0x034
	RegQueueNum          = 0x038
	RegQueueReady        = 0x044
	RegQueueNotify       = 0x050
	RegInterruptStatus   = 0x060
	RegInterruptACK      = 0x064
	RegStatus            = 0x070
	RegQueueDesc         = 0x080
	RegQueueDriver       = 0x090
	RegQueueDevice       = 0x0a0
	RegSHMLenLow         = 0x0b0
	RegConfigGeneration  = 0x0fc
	RegConfig            = 0x100
)

// The device status bits (§2.1).
const (
	Acknowledge = 1
	DriverFound = 2
	DriverOK    = 4
	FeaturesOK  = 8
	NeedsReset  = 64
)

// Driver drives one device. It is not safe for concurrent use, but the device
// may work on other goroutines meanwhile.
type Driver struct {
	Mem       *memory.Memory
	Transport *mmio.Transport

	tb    testing.TB
	low   memory.GPA // bytes of memory below the hole
	rings []*Ring
	next  memory.GPA // bump allocator
	irq   chan struct{}
	// MaxQueue bounds the queue sizes that Init asks for; 0 means the device's
	// maximum.
	MaxQueue uint32
	// Refuse has feature bits that Init does not accept.
	Refuse uint64
}

// Attach puts dev behind a register file and guest memory, not started. The
// device is closed when the test ends.
func Attach(tb testing.TB, dev virtio.Device) *Driver {
	tb.Helper()
	return attach(tb, dev, LowSize)
}

func attach(tb testing.TB, dev virtio.Device, low memory.GPA) *Driver {
	tb.Helper()
	mem, err := memory.FromRegions(
		memory.Region{Start: 0, Bytes: make([]byte, low)},
		memory.Region{Start: memory.HoleEnd, Bytes: make([]byte, HighSize)})
	if err != nil {
		tb.Fatal(err)
	}
	d := &Driver{Mem: mem, low: low, tb: tb, irq: make(chan struct{}, 1)}
	d.Transport = mmio.New(dev, mem, d.interrupt)
	tb.Cleanup(func() {
		if err := dev.Close(); err != nil {
			tb.Errorf("close device: %v", err)
		}
	})
	return d
}

// Start attaches dev and initializes it with all features it offers.
func Start(tb testing.TB, dev virtio.Device) *Driver {
	tb.Helper()
	d := Attach(tb, dev)
	d.Init()
	return d
}

// negotiate resets the device and agrees on features: queues may be made then.
func (d *Driver) negotiate() {
	d.tb.Helper()
	d.SetReg(RegStatus, 0)
	if s := d.Reg(RegStatus); s != 0 {
		d.tb.Fatalf("status after reset is %#x", s)
	}
	d.SetReg(RegStatus, Acknowledge)
	d.SetReg(RegStatus, Acknowledge|DriverFound)
	for sel := range uint32(2) {
		d.SetReg(RegDeviceFeaturesSel, sel)
		d.SetReg(RegDriverFeaturesSel, sel)
		d.SetReg(RegDriverFeatures, d.Reg(RegDeviceFeatures)&^uint32(d.Refuse>>(32*sel)))
	}
	d.SetReg(RegStatus, Acknowledge|DriverFound|FeaturesOK)
}

// Init resets the device and initializes it, whatever happened before; the test
// fails when the device does not come up. Memory handed out before is reused.
func (d *Driver) Init() {
	d.tb.Helper()
	d.negotiate()
	d.next = 0x1000
	d.rings = nil
	for i := range d.Transport.Queues() {
		d.rings = append(d.rings, d.initQueue(uint32(i)))
	}
	const all = Acknowledge | DriverFound | FeaturesOK | DriverOK
	d.SetReg(RegStatus, all)
	if s := d.Reg(RegStatus); s != all {
		d.tb.Fatalf("status after DRIVER_OK is %#x: %v", s, d.Transport.Err())
	}
}

func (d *Driver) initQueue(i uint32) *Ring {
	d.SetReg(RegQueueSel, i)
	size := d.Reg(RegQueueNumMax)
	if d.MaxQueue != 0 {
		size = min(size, d.MaxQueue)
	}
	r := &Ring{d: d, Size: uint16(size)}
	r.Desc = d.Alloc(16 * uint64(size))
	r.Avail = d.Alloc(6 + 2*uint64(size))
	r.Used = d.Alloc(6 + 8*uint64(size))
	r.clear()
	d.SetReg(RegQueueNum, size)
	for reg, gpa := range map[uint64]memory.GPA{RegQueueDesc: r.Desc, RegQueueDriver: r.Avail, RegQueueDevice: r.Used} {
		d.SetReg(reg, uint32(gpa))
		d.SetReg(reg+4, uint32(gpa>>32))
	}
	d.SetReg(RegQueueReady, 1)
	return r
}

// Ring returns the driver's end of queue i.
func (d *Driver) Ring(i int) *Ring { return d.rings[i] }

// Reg reads a 32-bit register.
func (d *Driver) Reg(off uint64) uint32 {
	var p [4]byte
	d.Transport.Read(off, p[:])
	return binary.LittleEndian.Uint32(p[:])
}

// SetReg writes a 32-bit register.
func (d *Driver) SetReg(off uint64, v uint32) {
	d.Transport.Write(off, binary.LittleEndian.AppendUint32(nil, v))
}

// Kick notifies the device of queue i.
func (d *Driver) Kick(i int) { d.SetReg(RegQueueNotify, uint32(i)) }

// Broken says whether the device asked for a reset, and why.
func (d *Driver) Broken() (bool, error) {
	return d.Reg(RegStatus)&NeedsReset != 0, d.Transport.Err()
}

// Interrupts receives when the device raised its interrupt since the last
// receive. It also acts as the edge of Wait. Whoever receives has to Acknowledge
// before it looks at the device.
func (d *Driver) Interrupts() <-chan struct{} { return d.irq }

// Acknowledge is the start of an interrupt handler (§4.2.3.3).
func (d *Driver) Acknowledge() { d.SetReg(RegInterruptACK, d.Reg(RegInterruptStatus)) }

// Alloc hands out n bytes of low guest memory, aligned to 16.
func (d *Driver) Alloc(n uint64) memory.GPA {
	d.tb.Helper()
	gpa := d.next
	d.next += memory.GPA(n+15) &^ 15
	if d.next > d.low {
		d.tb.Fatalf("guest memory exhausted by an allocation of %d bytes", n)
	}
	return gpa
}

// Buf is a piece of guest memory to put into a chain.
type Buf struct {
	Addr  memory.GPA
	Len   uint32
	Write bool // device-writable
}

// Out allocates a device-readable buffer that holds p.
func (d *Driver) Out(p []byte) Buf {
	d.tb.Helper()
	b := Buf{Addr: d.Alloc(uint64(len(p))), Len: uint32(len(p))}
	d.Put(b.Addr, p)
	return b
}

// In allocates a device-writable buffer of n bytes.
func (d *Driver) In(n uint32) Buf {
	d.tb.Helper()
	return Buf{Addr: d.Alloc(uint64(n)), Len: n, Write: true}
}

// Bytes copies the buffer's memory.
func (d *Driver) Bytes(b Buf) []byte {
	d.tb.Helper()
	p := make([]byte, b.Len)
	if err := d.Mem.ReadAt(p, b.Addr); err != nil {
		d.tb.Fatal(err)
	}
	return p
}

// Put writes p to guest memory.
func (d *Driver) Put(gpa memory.GPA, p []byte) {
	d.tb.Helper()
	if err := d.Mem.WriteAt(p, gpa); err != nil {
		d.tb.Fatal(err)
	}
}
