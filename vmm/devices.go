package vmm

import (
	"errors"
	"fmt"
	"sync"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/mmio"
)

const (
	mmioBase = 0xd0000000
	mmioSize = 0x1000
)

// wire is what connects a virtio device to the guest: registers on the MMIO
// bus, an irqfd, and an ioeventfd with a goroutine for each queue.
type wire struct {
	base    uint64
	gsi     uint32
	regs    *mmio.Transport
	kicks   []*eventFD
	serving sync.WaitGroup
}

// attach puts all devices on the buses.
func (v *VM) attach() error {
	irq, err := v.newIRQ(gsiSerial)
	if err != nil {
		return err
	}
	if err := v.attachPorts(irq.signal); err != nil {
		return err
	}
	for i, d := range v.cfg.Devices {
		w := &wire{base: mmioBase + uint64(i)*mmioSize, gsi: uint32(firstGSI + i)}
		v.wires = append(v.wires, w)
		if err := v.connect(w, d); err != nil {
			return fmt.Errorf("attach virtio device %d: %w", i, err)
		}
	}
	return nil
}

func (v *VM) connect(w *wire, d virtio.Device) error {
	irq, err := v.newIRQ(w.gsi)
	if err != nil {
		return err
	}
	w.regs = mmio.New(d, v.mem, irq.signal)
	if err := v.mmio.Register(w.base, mmioSize, w.regs); err != nil {
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
				w.regs.Kick(q)
			}
		})
	}
	return nil
}

// newIRQ makes an irqfd: its signal is an edge on the GSI.
func (v *VM) newIRQ(gsi uint32) (*eventFD, error) {
	irq, err := newEventFD()
	if err != nil {
		return nil, err
	}
	v.irqs = append(v.irqs, irq)
	return irq, v.vm.IRQFD(irq.fd(), gsi)
}

// close ends the goroutines: when it returns nobody kicks the device. Its irqfd
// stays, as the device may raise it until it is closed.
func (w *wire) close() error {
	var errs error
	for _, k := range w.kicks {
		errs = errors.Join(errs, k.close())
	}
	w.serving.Wait()
	return errs
}
