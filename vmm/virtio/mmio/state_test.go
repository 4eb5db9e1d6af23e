package mmio_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/mmio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
	"github.com/duplex-run/duplex/vmm/virtio/rng"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// started is a device that has answered a request, and its state.
func started(t *testing.T) (*v.Driver, *mmio.State) {
	t.Helper()
	d := v.Start(t, rng.New())
	d.Ring(0).Add(d.In(8))
	d.Kick(0)
	d.Ring(0).Wait()
	return d, d.Move(rng.New())
}

// States that no transport can be in, and those of other devices, are refused.
func TestRestoreRefuses(t *testing.T) {
	d, good := started(t)
	for name, c := range map[string]struct {
		change func(*mmio.State)
		want   error
	}{
		"another type":            {func(s *mmio.State) { s.Type = virtio.TypeBlock }, mmio.ErrState},
		"no queue":                {func(s *mmio.State) { s.Queues = nil }, mmio.ErrState},
		"a queue too many":        {func(s *mmio.State) { s.Queues = append(s.Queues, s.Queues...) }, mmio.ErrState},
		"unknown status":          {func(s *mmio.State) { s.Status |= 1 << 5 }, mmio.ErrState},
		"NEEDS_RESET":             {func(s *mmio.State) { s.Status |= v.NeedsReset }, mmio.ErrState},
		"DRIVER_OK alone":         {func(s *mmio.State) { s.Status = v.DriverOK }, mmio.ErrState},
		"a feature not offered":   {func(s *mmio.State) { s.Features |= 1 << 7 }, mmio.ErrState},
		"no VERSION_1":            {func(s *mmio.State) { s.Features &^= virtio.FeatureVersion1 }, mmio.ErrState},
		"ready before features":   {func(s *mmio.State) { s.Status = v.Acknowledge | v.DriverFound }, mmio.ErrState},
		"interrupt status":        {func(s *mmio.State) { s.InterruptStatus = 4 }, mmio.ErrState},
		"ring outside":            {func(s *mmio.State) { s.Queues[0].Layout.Used = 1 << 40 }, memory.ErrOutOfRange},
		"size of three":           {func(s *mmio.State) { s.Queues[0].Layout.Size = 3 }, queue.ErrSize},
		"more taken than fit":     {func(s *mmio.State) { s.Queues[0].NextAvail = s.Queues[0].NextUsed + 65 }, queue.ErrState},
		"answered before taken":   {func(s *mmio.State) { s.Queues[0].NextUsed++ }, queue.ErrState},
		"a state of the device's": {func(s *mmio.State) { s.Device = []byte{1} }, virtio.ErrOwnState},
	} {
		bad := *good
		bad.Queues = slices.Clone(good.Queues)
		c.change(&bad)
		dev := rng.New()
		if err := mmio.New(dev, d.Mem, func() {}).Restore(&bad); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := mmio.New(&v.Tap{}, d.Mem, func() {}).Restore(good); !errors.Is(err, mmio.ErrUnsaved) {
		t.Errorf("a device without a state: %v", err)
	}
}

func TestSaveRefuses(t *testing.T) {
	if s, err := v.Start(t, &v.Tap{}).Transport.Save(); !errors.Is(err, mmio.ErrUnsaved) {
		t.Errorf("a device without a state: %+v, %v", s, err)
	}
	d := v.Start(t, rng.New())
	d.Transport.Broken(mmio.ErrSequence)
	if s, err := d.Transport.Save(); !errors.Is(err, mmio.ErrUnsaved) {
		t.Errorf("a broken device: %+v, %v", s, err)
	}
}

// An interrupt that the driver did not acknowledge comes again; registers are what
// they were.
func TestMoveKeepsRegisters(t *testing.T) {
	d, _ := started(t)
	<-d.Interrupts() // of the answer before, raised anew
	d.SetReg(v.RegInterruptACK, 3)
	d.Transport.ConfigChanged()
	<-d.Interrupts()
	generation := d.Reg(v.RegConfigGeneration)
	d.SetReg(v.RegQueueSel, 0)
	d.Move(rng.New())
	select {
	case <-d.Interrupts():
	default:
		t.Error("the interrupt is lost")
	}
	if got := d.Reg(v.RegInterruptStatus); got != 2 {
		t.Errorf("interrupt status %d", got)
	}
	if got := d.Reg(v.RegConfigGeneration); got != generation {
		t.Errorf("generation %d, before %d", got, generation)
	}
	if d.Reg(v.RegQueueReady) != 1 || d.Reg(v.RegStatus) != v.Acknowledge|v.DriverFound|v.FeaturesOK|v.DriverOK {
		t.Errorf("queue ready %d, status %#x", d.Reg(v.RegQueueReady), d.Reg(v.RegStatus))
	}
	d.Init() // a reset works as ever
}
