package mmio_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/duplex-run/duplex/vmm/bus"
	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/mmio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

var _ bus.Handler = (*mmio.Transport)(nil)

func TestIdentity(t *testing.T) {
	d := v.Attach(t, &v.Tap{Sizes: []uint16{64, 128}})
	for reg, want := range map[uint64]uint32{
		v.RegMagic: 0x74726976, v.RegVersion: 2, v.RegDeviceID: 42, v.RegStatus: 0,
		v.RegSHMLenLow: 0xffffffff, 0x0b4: 0xffffffff, // no such shared memory region
		v.RegQueueNumMax: 64, v.RegInterruptStatus: 0, 0x0c0: 0, 0x07c: 0,
	} {
		if got := d.Reg(reg); got != want {
			t.Errorf("register %#x reads %#x, want %#x", reg, got, want)
		}
	}
	for sel, want := range []uint32{1<<3 | 1<<28 | 1<<29, 1<<0 | 1<<1, 0} {
		d.SetReg(v.RegDeviceFeaturesSel, uint32(sel))
		if got := d.Reg(v.RegDeviceFeatures); got != want {
			t.Errorf("features %d read %#x, want %#x", sel, got, want)
		}
	}
	for sel, want := range map[uint32]uint32{1: 128, 2: 0, 1 << 31: 0} {
		d.SetReg(v.RegQueueSel, sel)
		if got := d.Reg(v.RegQueueNumMax); got != want {
			t.Errorf("QueueNumMax of %d is %d, want %d", sel, got, want)
		}
	}
}

func TestInitialize(t *testing.T) {
	tap := &v.Tap{Sizes: []uint16{8, 16}}
	d := v.Start(t, tap)
	want := tap.Features() | virtio.FeatureVersion1 | queue.FeatureIndirect | queue.FeatureEventIdx
	if tap.Act == nil || tap.Act.Features != want {
		t.Fatalf("activation: %+v, want features %#x", tap.Act, want)
	}
	if n := tap.Act.Queues[1].Size(); n != 16 {
		t.Errorf("queue 1 has %d entries", n)
	}
	d.Kick(1)
	d.Kick(0)
	d.SetReg(v.RegQueueNotify, 2)
	d.SetReg(v.RegQueueNotify, 0xffffffff)
	d.Transport.Kick(-1)
	if !slices.Equal(tap.Kicks, []int{1, 0}) {
		t.Errorf("kicks: %v", tap.Kicks)
	}
	d.SetReg(v.RegStatus, 0)
	if tap.Act != nil || d.Reg(v.RegStatus) != 0 {
		t.Error("the device was not reset")
	}
	d.SetReg(v.RegQueueSel, 1)
	if d.Reg(v.RegQueueReady) != 0 {
		t.Error("a queue is ready after reset")
	}
}

// setup writes statuses and registers in turn.
type step struct {
	reg uint64
	val uint32
}

func TestOutOfTurn(t *testing.T) {
	const (
		ack      = v.Acknowledge
		driver   = v.Acknowledge | v.DriverFound
		features = driver | v.FeaturesOK
		ok       = features | v.DriverOK
	)
	agree := []step{{v.RegStatus, ack}, {v.RegStatus, driver}, {v.RegDriverFeaturesSel, 1},
		{v.RegDriverFeatures, 1}, {v.RegStatus, features}}
	queue8 := []step{{v.RegQueueNum, 8}, {v.RegQueueDesc, 0x1000}, {v.RegQueueDriver, 0x2000}, {v.RegQueueDevice, 0x3000}}
	for _, c := range []struct {
		name  string
		steps [][]step
		want  error // nil: the device does not mind
	}{
		{"in turn", [][]step{agree, queue8, {{v.RegQueueReady, 1}, {v.RegStatus, ok}}}, nil},
		{"DRIVER first", [][]step{{{v.RegStatus, v.DriverFound}}}, mmio.ErrSequence},
		{"FEATURES_OK first", [][]step{{{v.RegStatus, v.FeaturesOK}}}, mmio.ErrSequence},
		{"DRIVER_OK without FEATURES_OK", [][]step{{{v.RegStatus, driver | v.DriverOK}}}, mmio.ErrSequence},
		{"all at once without VERSION_1", [][]step{{{v.RegStatus, ok}}}, mmio.ErrSequence},
		{"a bit cleared", [][]step{{{v.RegStatus, driver}, {v.RegStatus, v.DriverFound}}}, mmio.ErrSequence},
		{"features before DRIVER", [][]step{{{v.RegDriverFeatures, 1}}}, mmio.ErrSequence},
		{"features after FEATURES_OK", [][]step{agree, {{v.RegDriverFeatures, 1}}}, mmio.ErrSequence},
		{"ready before anything", [][]step{{{v.RegQueueReady, 1}}}, mmio.ErrSequence},
		{"ready before FEATURES_OK", [][]step{agree[:4], queue8, {{v.RegQueueReady, 1}}}, mmio.ErrSequence},
		{"ready before configured", [][]step{agree, {{v.RegQueueReady, 1}}}, queue.ErrSize},
		{"ready with a ring outside", [][]step{agree, queue8, {{v.RegQueueDevice + 4, 1 << 31}, {v.RegQueueReady, 1}}}, memory.ErrOutOfRange},
		{"ready with too many", [][]step{agree, queue8, {{v.RegQueueNum, 16}, {v.RegQueueReady, 1}}}, queue.ErrSize},
		{"queue made after DRIVER_OK", [][]step{agree, queue8, {{v.RegStatus, ok}, {v.RegQueueReady, 1}}}, mmio.ErrSequence},
		{"queue unmade after DRIVER_OK", [][]step{agree, queue8, {{v.RegQueueReady, 1}, {v.RegStatus, ok}, {v.RegQueueReady, 0}}}, mmio.ErrSequence},
		{"queue unmade and made", [][]step{agree, queue8, {{v.RegQueueReady, 1}, {v.RegQueueReady, 0}, {v.RegQueueReady, 1}, {v.RegStatus, ok}}}, nil},
		{"queue that is not there", [][]step{agree, {{v.RegQueueSel, 7}, {v.RegQueueReady, 1}, {v.RegQueueNum, 3}}}, nil},
		{"DRIVER_OK with no queue", [][]step{agree, {{v.RegStatus, ok}}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := v.Attach(t, &v.Tap{})
			for _, s := range slices.Concat(c.steps...) {
				d.SetReg(s.reg, s.val)
			}
			broken, err := d.Broken()
			if broken != (c.want != nil) || !errors.Is(err, c.want) {
				t.Errorf("needs reset: %v, %v; want %v", broken, err, c.want)
			}
			d.Init() // a reset mends everything
		})
	}
}

func TestLayoutIsFixedWhenReady(t *testing.T) {
	tap := &v.Tap{}
	d := v.Start(t, tap)
	d.SetReg(v.RegQueueNum, 3)
	d.SetReg(v.RegQueueDesc, 0xffffffff)
	if broken, err := d.Broken(); broken || tap.Act.Queues[0].Size() != 8 {
		t.Errorf("broken %v, %v", broken, err)
	}
}

func TestFeaturesNotOffered(t *testing.T) {
	d := v.Attach(t, &v.Tap{})
	d.SetReg(v.RegStatus, v.Acknowledge)
	d.SetReg(v.RegStatus, v.Acknowledge|v.DriverFound)
	d.SetReg(v.RegDriverFeaturesSel, 1)
	d.SetReg(v.RegDriverFeatures, 1|1<<7)
	d.SetReg(v.RegStatus, v.Acknowledge|v.DriverFound|v.FeaturesOK)
	if got := d.Reg(v.RegStatus); got != v.Acknowledge|v.DriverFound {
		t.Errorf("status %#x: FEATURES_OK must not stick", got)
	}
}

func TestActivateFails(t *testing.T) {
	boom := errors.New("boom")
	d := v.Attach(t, &v.Tap{Fail: boom})
	const all = v.Acknowledge | v.DriverFound | v.FeaturesOK
	d.SetReg(v.RegStatus, v.Acknowledge|v.DriverFound)
	d.SetReg(v.RegDriverFeaturesSel, 1)
	d.SetReg(v.RegDriverFeatures, 1)
	d.SetReg(v.RegStatus, all)
	d.SetReg(v.RegStatus, all|v.DriverOK)
	if broken, err := d.Broken(); !broken || !errors.Is(err, boom) {
		t.Errorf("broken %v, %v", broken, err)
	}
}

func TestInterrupts(t *testing.T) {
	tap := &v.Tap{}
	d := v.Start(t, tap)
	raised := func() bool {
		select {
		case <-d.Interrupts():
			return true
		default:
			return false
		}
	}
	tap.Act.Transport.Interrupt()
	if !raised() || d.Reg(v.RegInterruptStatus) != 1 {
		t.Errorf("used buffer notification: status %d", d.Reg(v.RegInterruptStatus))
	}
	before := d.Reg(v.RegConfigGeneration)
	tap.Act.Transport.ConfigChanged()
	if !raised() || d.Reg(v.RegInterruptStatus) != 3 || d.Reg(v.RegConfigGeneration) == before {
		t.Errorf("configuration change: status %d", d.Reg(v.RegInterruptStatus))
	}
	d.SetReg(v.RegInterruptACK, 1)
	if got := d.Reg(v.RegInterruptStatus); got != 2 {
		t.Errorf("status after the acknowledgement is %d", got)
	}
	d.Acknowledge()
	tap.Act.Transport.Broken(errors.New("enough"))
	if broken, _ := d.Broken(); !broken || !raised() {
		t.Error("DEVICE_NEEDS_RESET came without a notification")
	}
	d.Kick(0)
	if len(tap.Kicks) != 0 {
		t.Error("a broken device was kicked")
	}
	act := tap.Act
	act.Transport.Broken(errors.New("again"))
	if n := d.Transport.Faults(); n != 1 || raised() {
		t.Errorf("%d faults counted before the reset", n)
	}
	d.Init()
	tap.Act.Transport.Broken(errors.New("after the reset"))
	if n := d.Transport.Faults(); n != 2 {
		t.Errorf("%d faults counted, want 2", n)
	}
}

// A driver that has not acknowledged an interrupt gets no other, unless the edge
// may have been lost.
func TestOneEdgeUntilAcknowledged(t *testing.T) {
	tap := &v.Tap{}
	edges := 0
	d := v.Start(t, tap)
	regs := mmio.New(tap, d.Mem, func() { edges++ })
	began := time.Now()
	for edges < 2 { // the second edge makes up for the first
		regs.Interrupt()
		if edges == 2 && time.Since(began) < time.Millisecond {
			t.Errorf("two edges within %v", time.Since(began))
		}
	}
	acknowledge := []byte{1, 0, 0, 0}
	regs.Write(v.RegInterruptACK, acknowledge)
	if regs.Interrupt(); edges != 3 {
		t.Error("no edge after the acknowledgement")
	}
	if regs.ConfigChanged(); edges != 4 {
		t.Error("no edge for another reason")
	}
}

func TestConfigSpace(t *testing.T) {
	tap := &v.Tap{Space: []byte{1, 2, 3, 4, 5, 6, 7, 8}}
	d := v.Attach(t, tap)
	p := []byte{9, 9, 9, 9}
	d.Transport.Read(v.RegConfig+6, p)
	if !slices.Equal(p, []byte{7, 8, 0, 0}) {
		t.Errorf("read across the end: %v", p)
	}
	d.Transport.Read(mmio.Size-4, p)
	if !slices.Equal(p, make([]byte, 4)) {
		t.Errorf("read beyond: %v", p)
	}
	d.Transport.Write(v.RegConfig+1, []byte{0xaa})
	d.Transport.Write(v.RegConfig+100, []byte{0xbb})
	if !slices.Equal(tap.Space, []byte{1, 0xaa, 3, 4, 5, 6, 7, 8}) {
		t.Errorf("space: %v", tap.Space)
	}
}

// Only aligned 32-bit accesses reach the registers.
func TestAccessWidth(t *testing.T) {
	d := v.Attach(t, &v.Tap{})
	for _, c := range []struct {
		off uint64
		n   int
	}{{0, 1}, {0, 2}, {0, 8}, {1, 4}, {2, 4}} {
		p := make([]byte, c.n)
		p[0] = 9
		d.Transport.Read(c.off, p)
		if !slices.Equal(p, make([]byte, c.n)) {
			t.Errorf("read of %d at %#x: %v", c.n, c.off, p)
		}
	}
	d.Transport.Write(v.RegStatus, []byte{1})
	if got := d.Reg(v.RegStatus); got != 0 {
		t.Errorf("a byte reached the status: %#x", got)
	}
}

// Registers of any offset, at any width, with the queues in any state.
func FuzzTransport(f *testing.F) {
	f.Add([]byte{6, 17, 0, 0, 0, 0, 6, 28, 15, 0, 0, 0})
	// Initialization from the start (§3.1.1): status, features, a queue.
	f.Add([]byte{
		6, 28, 0, 0, 0, 0, 6, 28, 1, 0, 0, 0, 6, 28, 3, 0, 0, 0, 6, 9, 1, 0, 0, 0, 6, 8, 1, 0, 0, 0, 6, 28, 11, 0, 0, 0,
		6, 14, 8, 0, 0, 0, 6, 32, 0, 16, 0, 0, 6, 36, 0, 32, 0, 0, 6, 40, 0, 48, 0, 0, 6, 17, 1, 0, 0, 0, 6, 28, 15, 0, 0, 0,
		6, 20, 0, 0, 0, 0,
	})
	f.Add([]byte{7, 0, 1, 0, 0, 0, 0, 8, 7, 1, 1, 255, 255, 255, 255, 7, 7, 113, 0, 15, 0, 0, 0, 1, 7, 255, 255, 1, 2, 3, 4, 3})
	v.Fuzz(f, func(testing.TB) virtio.Device {
		return &v.Tap{Sizes: []uint16{8, 16}, Space: make([]byte, 24)}
	}, nil)
}
