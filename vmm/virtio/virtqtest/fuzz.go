package virtqtest

import (
	"encoding/binary"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio"
)

// fuzzLow is the low memory of fuzzed devices: little, since it is made anew for
// each input.
const fuzzLow = 128 << 10

// Fuzz lets bytes drive a device as a hostile guest would: they write guest
// memory, descriptors, ring indices, registers and configuration space, and
// kick. Nothing may panic or hang, and after a reset the device must come up
// again. check, if not nil, is called with the device up then.
func Fuzz(f *testing.F, open func(testing.TB) virtio.Device, check func(testing.TB, *Driver)) {
	f.Fuzz(func(t *testing.T, script []byte) {
		d := attach(t, open(t), fuzzLow)
		d.MaxQueue = 8 // few descriptors: the bytes matter more
		d.Init()
		(&attack{d: d, script: script}).run()
		d.Init()
		if check != nil {
			check(t, d)
		}
	})
}

// StartSmall is Start with little memory, for a fuzz target of its own.
func StartSmall(tb testing.TB, dev virtio.Device) *Driver {
	tb.Helper()
	d := attach(tb, dev, fuzzLow)
	d.Init()
	return d
}

// attack interprets a script: one byte for what to do, then its arguments.
type attack struct {
	d      *Driver
	script []byte
}

func (a *attack) byte() byte {
	if len(a.script) == 0 {
		return 0
	}
	b := a.script[0]
	a.script = a.script[1:]
	return b
}

func (a *attack) word() uint16 { return uint16(a.byte()) | uint16(a.byte())<<8 }

func (a *attack) long() uint32 { return uint32(a.word()) | uint32(a.word())<<16 }

func (a *attack) ring() *Ring { return a.d.rings[int(a.byte())%len(a.d.rings)] }

// address picks one in low memory, around its end, beyond the hole, or anything.
func (a *attack) address() memory.GPA {
	kind, off := a.byte(), memory.GPA(a.word())
	switch kind % 5 {
	case 0, 1:
		return off
	case 2:
		return fuzzLow - 0x8000 + off
	case 3:
		return memory.HoleEnd - 0x100 + off
	default:
		return memory.GPA(a.long())<<32 | off<<16 | memory.GPA(a.long())
	}
}

// length picks a short one, a long one, one of whole sectors, or one around the
// edge of 32 bits.
func (a *attack) length() uint32 {
	switch v := a.word(); v % 8 {
	case 0, 1, 4, 5:
		return uint32(v >> 2 & 0xff)
	case 2:
		return uint32(v)
	case 6:
		return 512 * uint32(v>>3&0xff)
	default:
		return ^uint32(v)
	}
}

func (a *attack) run() {
	for len(a.script) > 0 {
		switch op := a.byte(); op % 9 {
		case 0:
			p := make([]byte, a.byte()%64)
			for i := range p {
				p[i] = a.byte()
			}
			_ = a.d.Mem.WriteAt(p, a.address()) // refused where there is no memory
		case 1:
			r := a.ring()
			i := uint16(a.byte()) % r.Size
			r.SetDesc(i, Desc{Addr: a.address(), Len: a.length(), Flags: uint16(a.byte()), Next: uint16(a.byte() % 9)})
		case 2:
			r := a.ring()
			r.Publish(uint16(a.byte() % 9))
		case 3, 4:
			a.d.Kick(int(a.byte()) % len(a.d.rings))
		case 5:
			a.ring().SetAvail(a.word())
		case 6:
			a.d.SetReg(uint64(a.byte())*4, a.long())
		case 7:
			a.config()
		case 8:
			if op > 200 {
				a.d.Init()
			}
			_ = a.d.Reg(uint64(a.byte()) * 4)
		}
	}
}

// config accesses the register file and the configuration space at any width.
func (a *attack) config() {
	off, p := uint64(a.word()), binary.LittleEndian.AppendUint64(nil, uint64(a.long()))
	p = p[:1+a.byte()%8]
	if off%2 == 0 {
		a.d.Transport.Read(off, p)
		return
	}
	a.d.Transport.Write(off, p)
}
