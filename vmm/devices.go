package vmm

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/duplex-run/duplex/vmm/acpi"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/mmio"
)

const (
	mmioBase = 0xd0000000
	mmioSize = 0x1000
)

// wire is what connects a virtio device to the guest: registers on the MMIO
// bus, an interrupt line, and an ioeventfd with a goroutine for each queue.
type wire struct {
	base    uint64
	gsi     uint32
	regs    *mmio.Transport
	kicks   []*eventFD
	kicked  atomic.Uint64
	serving sync.WaitGroup
}

// attach puts all devices on the buses.
func (v *VM) attach() error {
	// The serial port signals with its lock held, which vCPUs take too: an irqfd
	// leaves the interrupt to others. Devices use a kvm.Line, which is quicker.
	var err error
	if v.irq, err = newEventFD(); err != nil {
		return err
	}
	if err := v.vm.IRQFD(v.irq.fd(), gsiSerial); err != nil {
		return err
	}
	if err := v.attachPorts(v.irq.signal); err != nil {
		return err
	}
	v.power = v.vm.Line(gsiPower)
	for i, d := range v.cfg.Devices {
		at := place(i)
		w := &wire{base: uint64(at.Base), gsi: at.GSI}
		v.wires = append(v.wires, w)
		if err := v.connect(w, d); err != nil {
			return fmt.Errorf("attach virtio device %d: %w", i, err)
		}
	}
	for i := len(v.cfg.Devices); i < len(v.cfg.Devices)+v.cfg.Slots; i++ {
		if err := v.mmio.Register(uint64(place(i).Base), mmioSize, mmio.Empty{}); err != nil {
			return fmt.Errorf("attach virtio slot %d: %w", i, err)
		}
	}
	return nil
}

// place is where the guest finds device i.
func place(i int) acpi.MMIODevice {
	return acpi.MMIODevice{Base: uint32(mmioBase + i*mmioSize), Size: mmioSize, GSI: uint32(firstGSI + i)}
}

func (v *VM) connect(w *wire, d virtio.Device) error {
	line := v.vm.Line(w.gsi)
	w.regs = mmio.New(d, v.mem, func() { _ = line.Pulse() }) // the GSI is one of the irqchip's: it cannot fail
	if err := v.mmio.Register(w.base, mmioSize, &offload{w.regs, v}); err != nil {
		return err
	}
	for q := range w.regs.Queues() {
		kick, err := newEventFD()
		if err != nil {
			return err
		}
		w.kicks = append(w.kicks, kick)
		if err := v.vm.IOEventFD(kick.fd(), w.base+mmio.NotifyOffset, uint32(q)); err != nil {
			return err
		}
		w.serving.Go(func() {
			for kick.wait() {
				w.kicked.Add(1)
				w.regs.Kick(q)
			}
		})
	}
	return nil
}

// offload is a transport's registers, whose writes to Status run on a goroutine
// of their own: they start and stop the device, which may take system calls that
// a vCPU's thread may not make, and time that must not keep a run from ending.
type offload struct {
	*mmio.Transport
	vm *VM
}

// Write implements bus.Handler.
func (o *offload) Write(off uint64, p []byte) {
	if off != mmio.StatusOffset {
		o.Transport.Write(off, p)
		return
	}
	done := make(chan struct{})
	value := append([]byte(nil), p...)
	o.vm.slow.Go(func() {
		defer close(done)
		o.Transport.Write(off, value)
	})
	select {
	case <-done:
	case <-o.vm.stopping:
	}
}

// close ends the goroutines: when it returns nobody kicks the device. The device
// may still raise its line until it is closed.
func (w *wire) close() error {
	var errs error
	for _, k := range w.kicks {
		errs = errors.Join(errs, k.close())
	}
	w.serving.Wait()
	return errs
}
