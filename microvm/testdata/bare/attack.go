package main

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// attack drives the devices without drivers, by /dev/mem: their registers, and
// rings in memory that the kernel was told not to use (mem=192M). Each device
// gets each attack, and has to come up again after it.
func attack() error {
	mem, err := os.OpenFile("/dev/mem", os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		return err
	}
	regs, err := unix.Mmap(int(mem.Fd()), mmioBase, slots*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the registers: %w", err)
	}
	ram, err := unix.Mmap(int(mem.Fd()), ramBase, ramSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map memory: %w", err)
	}
	found := 0
	for i := range slots {
		d := &device{regs: regs[i*slotSize:][:slotSize], ram: ram}
		if d.get(0) != magic {
			continue
		}
		found++
		for _, a := range attacks {
			if err := d.up(); err != nil {
				return fmt.Errorf("device %d (type %d) before %s: %w", i, d.get(8), a.name, err)
			}
			a.do(d)
			if err := d.up(); err != nil {
				return fmt.Errorf("device %d (type %d) after %s: %w", i, d.get(8), a.name, err)
			}
		}
		fmt.Printf("bare: device %d type %d: %d attacks\n", i, d.get(8), len(attacks))
	}
	if found == 0 {
		return errors.New("no device found")
	}
	return nil
}

const (
	mmioBase = 0xd0000000
	slots    = 16
	slotSize = 0x1000
	magic    = 0x74726976
	ramBase  = 192 << 20 // behind mem=192M
	ramSize  = 1 << 20
	endOfRAM = 256 << 20

	descAt, availAt, usedAt, dataAt = 0, 0x2000, 0x4000, 0x8000
	queueStep                       = 0x10000
	queueSize                       = 8
)

// device is the registers of one device and memory for its rings.
type device struct{ regs, ram []byte }

func (d *device) get(off int) uint32    { return atomic.LoadUint32(register(d.regs, off)) }
func (d *device) set(off int, v uint32) { atomic.StoreUint32(register(d.regs, off), v) }

// up resets the device and initializes it.
func (d *device) up() error {
	d.set(0x70, 0)
	if err := d.status(0); err != nil {
		return err
	}
	d.set(0x70, 1)
	d.set(0x70, 3)
	for sel := range uint32(2) {
		d.set(0x14, sel)
		d.set(0x24, sel)
		d.set(0x20, d.get(0x10))
	}
	d.set(0x70, 11)
	clear(d.ram)
	for q := range 8 {
		d.set(0x30, uint32(q))
		if d.get(0x34) == 0 {
			break
		}
		d.queue(q, queueSize)
		d.set(0x44, 1)
	}
	d.set(0x70, 15)
	return d.status(15)
}

func (d *device) status(want uint32) error {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if d.get(0x70) == want {
			return nil
		}
	}
	return fmt.Errorf("status %#x, want %#x", d.get(0x70), want)
}

// queue says where the rings of the selected queue are.
func (d *device) queue(q int, size uint32) {
	base := uint32(ramBase + q*queueStep)
	d.set(0x38, size)
	for reg, at := range map[int]uint32{0x80: base + descAt, 0x90: base + availAt, 0xa0: base + usedAt} {
		d.set(reg, at)
		d.set(reg+4, 0)
	}
}

// desc writes a descriptor of queue 0.
func (d *device) desc(i int, addr uint64, length uint32, flags, next uint16) {
	at := descAt + 16*i
	*register(d.ram, at) = uint32(addr)
	*register(d.ram, at+4) = uint32(addr >> 32)
	*register(d.ram, at+8) = length
	*register(d.ram, at+12) = uint32(flags) | uint32(next)<<16
}

// publish makes head available n times and notifies every queue.
func (d *device) publish(head uint16, n uint32) {
	for q := range 3 {
		base := q * queueStep
		copy(d.ram[base+descAt:][:queueSize*16], d.ram[descAt:][:queueSize*16])
		for i := range queueSize / 2 {
			*register(d.ram, base+availAt+4+4*i) = uint32(head) | uint32(head)<<16
		}
		atomic.StoreUint32(register(d.ram, base+availAt), n<<16)
		d.set(0x50, uint32(q))
	}
}

const (
	next, write, indirect = 1, 2, 4
)

var attacks = []struct {
	name string
	do   func(*device)
}{
	{"a loop", func(d *device) { d.desc(0, ramBase+dataAt, 16, next, 0); d.publish(0, 1) }},
	{"a head out of the table", func(d *device) { d.publish(4000, 1) }},
	{"an index far ahead", func(d *device) { d.publish(0, 30000) }},
	{"memory past the end", func(d *device) { d.desc(0, endOfRAM-8, 4096, write, 0); d.publish(0, 1) }},
	{"memory in the hole", func(d *device) { d.desc(0, 0xc0000000-8, 64, write, 0); d.publish(0, 1) }},
	{"an address that wraps", func(d *device) { d.desc(0, 1<<64-8, 64, 0, 0); d.publish(0, 1) }},
	{"gigabytes", func(d *device) { d.desc(0, ramBase, 0xffffffff, write, 0); d.publish(0, 1) }},
	{"nested indirect", func(d *device) {
		d.desc(0, ramBase+descAt, 128, indirect, 0)
		d.publish(0, 1)
	}},
	{"odd indirect", func(d *device) { d.desc(0, ramBase+descAt+3, 17, indirect, 0); d.publish(0, 1) }},
	{"write before read", func(d *device) {
		d.desc(0, ramBase+dataAt, 16, write|next, 1)
		d.desc(1, ramBase+dataAt, 16, 0, 0)
		d.publish(0, 1)
	}},
	{"garbage requests", func(d *device) {
		for i := range 64 {
			*register(d.ram, dataAt+4*i) = 0xdeadbeef * uint32(i)
		}
		d.desc(0, ramBase+dataAt, 64, next, 1)
		d.desc(1, ramBase+dataAt+64, 4096, write, 0)
		d.publish(0, 8)
	}},
	{"a used ring outside memory", func(d *device) {
		d.set(0x70, 0)
		d.set(0x70, 1)
		d.set(0x70, 3)
		d.set(0x24, 1)
		d.set(0x20, 1)
		d.set(0x70, 11)
		d.set(0x30, 0)
		d.queue(0, queueSize)
		d.set(0xa0, endOfRAM-4)
		d.set(0x44, 1)
		d.set(0x70, 15)
	}},
	{"odd queue sizes", func(d *device) {
		for _, size := range []uint32{0, 3, 1 << 20, 0xffffffff} {
			d.set(0x70, 0)
			d.set(0x70, 11)
			d.set(0x30, 0)
			d.queue(0, size)
			d.set(0x44, 1)
			d.set(0x70, 15)
		}
	}},
	{"a storm of everything", func(d *device) {
		for i := range 2000 {
			d.set(0x50, uint32(i%9))
			d.set(4*(i%128), uint32(i)*2654435761)
			_ = d.get(4 * (i % 1024))
		}
	}},
}
