package virtqtest

import (
	"sync"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio"
)

// attackAddr is memory that attacks point at; Alloc has not come there.
const attackAddr = 0x20000

// ringAttacks are what a hostile driver puts into a ring, each against a rule of
// §2.7. size is the queue's.
var ringAttacks = []struct {
	name string
	do   func(d *Driver, r *Ring)
}{
	{"a descriptor that is its own next", chainOf(Desc{attackAddr, 1, FlagNext, 0})},
	{"a loop of two", chainOf(Desc{attackAddr, 1, FlagNext, 1}, Desc{attackAddr, 1, FlagNext, 0})},
	{"a writable loop", chainOf(Desc{attackAddr, 1, FlagNext | FlagWrite, 0})},
	{"next is out of the table", chainOf(Desc{attackAddr, 1, FlagNext, 0xffff})},
	{"a length of zero", chainOf(Desc{attackAddr, 0, 0, 0})},
	{"an address at the end of memory", chainOf(Desc{LowSize - 1, 2, 0, 0})},
	{"an address at the end of memory, writable", chainOf(Desc{LowSize - 1, 2, FlagWrite, 0})},
	{"an address in the hole", chainOf(Desc{memory.HoleStart, 1, FlagWrite, 0})},
	{"across the hole", chainOf(Desc{memory.HoleEnd - 1, 2, FlagWrite, 0})},
	{"an address that wraps", chainOf(Desc{^memory.GPA(0), 2, 0, 0})},
	{"a length that overflows", chainOf(Desc{attackAddr, 1<<32 - 1, FlagWrite, 0})},
	{"readable after writable", chainOf(Desc{attackAddr, 1, FlagNext | FlagWrite, 1}, Desc{attackAddr, 1, 0, 0})},
	{"an indirect table in an indirect table", func(d *Driver, r *Ring) {
		d.Put(attackAddr, Encode(Desc{attackAddr, 16, FlagIndirect, 0}))
		chainOf(Desc{attackAddr, 16, FlagIndirect, 0})(d, r)
	}},
	{"an indirect loop", func(d *Driver, r *Ring) {
		d.Put(attackAddr, Encode(Desc{attackAddr, 1, FlagNext, 0}))
		chainOf(Desc{attackAddr, 16, FlagIndirect, 0})(d, r)
	}},
	{"an indirect table larger than the queue", func(d *Driver, r *Ring) {
		chainOf(Desc{attackAddr, 16 * (uint32(r.Size) + 1), FlagIndirect, 0})(d, r)
	}},
	{"an indirect table of odd length", chainOf(Desc{attackAddr, 17, FlagIndirect, 0})},
	{"an indirect table that continues", chainOf(Desc{attackAddr, 16, FlagIndirect | FlagNext, 1})},
	{"an indirect table outside memory", chainOf(Desc{LowSize, 16, FlagIndirect, 0})},
	{"a head out of the table", func(_ *Driver, r *Ring) { r.Publish(r.Size) }},
	{"an index too far ahead", func(_ *Driver, r *Ring) { r.SetAvail(r.Size + 1) }},
	{"an index that went back", func(_ *Driver, r *Ring) { r.SetAvail(0xffff) }},
}

// chainOf makes descriptors from 0 on available as one chain.
func chainOf(descs ...Desc) func(*Driver, *Ring) {
	return func(_ *Driver, r *Ring) {
		for i, desc := range descs {
			r.SetDesc(uint16(i), desc)
		}
		r.Publish(0)
	}
}

// queueAttacks are what a hostile driver says of a queue, against §2.7 and
// §3.1.1.
var queueAttacks = []struct {
	name string
	do   func(d *Driver, max uint32)
}{
	{"a queue of size 0", func(d *Driver, _ uint32) { d.layout(0, 0x1000, 0x2000, 0x3000) }},
	{"a size that is no power of two", func(d *Driver, max uint32) { d.layout(max-1, 0x1000, 0x2000, 0x3000) }},
	{"a size above the maximum", func(d *Driver, max uint32) { d.layout(2*max, 0x1000, 0x2000, 0x3000) }},
	{"a size of 4 GiB", func(d *Driver, _ uint32) { d.layout(1<<31, 0x1000, 0x2000, 0x3000) }},
	{"descriptors outside memory", func(d *Driver, max uint32) { d.layout(max, LowSize, 0x2000, 0x3000) }},
	{"a misaligned descriptor table", func(d *Driver, max uint32) { d.layout(max, 0x1008, 0x2000, 0x3000) }},
	{"an avail ring across the end of memory", func(d *Driver, max uint32) { d.layout(max, 0x1000, LowSize-4, 0x3000) }},
	{"a used ring outside memory", func(d *Driver, max uint32) { d.layout(max, 0x1000, 0x2000, memory.HoleStart) }},
	{"a used ring across the end of memory", func(d *Driver, max uint32) { d.layout(max, 0x1000, 0x2000, LowSize-8) }},
	{"a used ring whose address wraps", func(d *Driver, max uint32) { d.layout(max, 0x1000, 0x2000, ^memory.GPA(3)) }},
	{"a queue before there are features", func(d *Driver, max uint32) {
		d.SetReg(RegStatus, 0)
		d.SetReg(RegStatus, Acknowledge|DriverFound)
		d.layout(max, 0x1000, 0x2000, 0x3000)
	}},
}

// layout makes the selected queue ready as it is told.
func (d *Driver) layout(size uint32, desc, avail, used memory.GPA) {
	d.SetReg(RegQueueNum, size)
	for reg, gpa := range map[uint64]memory.GPA{RegQueueDesc: desc, RegQueueDriver: avail, RegQueueDevice: used} {
		d.SetReg(reg, uint32(gpa))
		d.SetReg(reg+4, uint32(gpa>>32))
	}
	d.SetReg(RegQueueReady, 1)
}

// Attacks runs what a hostile driver can do to the rings, the queues and the
// registers of any device, as subtests. pops are the queues that the device takes
// a chain from when it is kicked: an attack through them must break the device
// (DEVICE_NEEDS_RESET), through the others do no harm. After each the device must
// come up again; works, if not nil, is called with it up.
func Attacks(t *testing.T, open func(testing.TB) virtio.Device, pops []int, works func(testing.TB, *Driver)) {
	recovered := func(t *testing.T, d *Driver) {
		t.Helper()
		d.Init()
		if works != nil {
			works(t, d)
		}
	}
	mustBreak := map[int]bool{}
	for _, q := range pops {
		mustBreak[q] = true
	}
	for _, a := range ringAttacks {
		t.Run(a.name, func(t *testing.T) {
			for q := range Start(t, open(t)).rings {
				d := Start(t, open(t))
				a.do(d, d.Ring(q))
				d.Kick(q)
				if broken, _ := d.Broken(); mustBreak[q] && !broken {
					t.Errorf("queue %d: the device went on", q)
				}
				recovered(t, d)
			}
		})
	}
	for _, a := range queueAttacks {
		t.Run(a.name, func(t *testing.T) {
			for q := range Start(t, open(t)).rings {
				d := Start(t, open(t))
				d.negotiate()
				d.SetReg(RegQueueSel, uint32(q))
				a.do(d, d.Reg(RegQueueNumMax))
				if broken, err := d.Broken(); !broken || d.Reg(RegQueueReady) != 0 {
					t.Errorf("queue %d: made ready: %v", q, err)
				}
				recovered(t, d)
			}
		})
	}
	t.Run("a storm of notifications", func(t *testing.T) { storm(t, Start(t, open(t)), recovered) })
	t.Run("resets while busy", func(t *testing.T) { resets(t, Start(t, open(t)), recovered) })
	t.Run("the configuration space and beyond", func(t *testing.T) {
		d := Start(t, open(t))
		configSpace(t, d)
		recovered(t, d)
	})
}

// storm notifies of buffers that are not there, and of queues that are not.
func storm(t *testing.T, d *Driver, recovered func(*testing.T, *Driver)) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 10000 {
				d.Transport.Kick(i%(len(d.rings)+2) - 1)
				d.Kick(i)
			}
		})
	}
	wg.Wait()
	if broken, err := d.Broken(); broken {
		t.Errorf("broken: %v", err)
	}
	recovered(t, d)
}

// resets starts and resets the device while its queues are kicked: after a reset
// it leaves the rings alone.
func resets(t *testing.T, d *Driver, recovered func(*testing.T, *Driver)) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for q := range d.rings {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					d.Transport.Kick(q)
				}
			}
		})
	}
	for range 50 {
		d.Init()
		for q := range d.rings {
			chainOf(Desc{attackAddr, 64, FlagWrite, 0})(d, d.Ring(q))
		}
		d.SetReg(RegStatus, 0)
		for q, r := range d.rings {
			at := r.UsedIndex()
			d.Kick(q)
			if now := r.UsedIndex(); now != at {
				t.Fatalf("queue %d: used index went from %d to %d after the reset", q, at, now)
			}
		}
	}
	close(stop)
	wg.Wait()
	recovered(t, d)
}

// configSpace reads and writes it at every width, inside and far outside.
func configSpace(t *testing.T, d *Driver) {
	for _, off := range []uint64{0, 1, 3, 7, 8, 59, 60, 255, 0xeff, 1 << 20, 1<<63 - 1, ^uint64(RegConfig)} {
		for n := range 9 {
			p := make([]byte, n)
			for i := range p {
				p[i] = 0xff
			}
			d.Transport.Read(RegConfig+off, p)
			for i, b := range p {
				if off >= 0xeff && b != 0 {
					t.Errorf("byte %d at offset %#x is %#x", i, off, b)
				}
			}
			d.Transport.Write(RegConfig+off, p)
		}
	}
}
