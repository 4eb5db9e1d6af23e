package virtqtest

import "github.com/duplex-run/duplex/vmm/memory"

// Pump makes the same requests available again and again without allocating,
// for benchmarks: the descriptors are written once.
type Pump struct {
	r     *Ring
	heads []uint16
}

// NewPump lays out n chains, each of bufs, on a ring that nothing else uses.
func NewPump(r *Ring, n int, bufs ...Buf) *Pump {
	p := &Pump{r: r}
	for i := range n {
		first := uint16(i * len(bufs))
		for j, b := range bufs {
			d := Desc{Addr: b.Addr, Len: b.Len}
			if b.Write {
				d.Flags |= FlagWrite
			}
			if j+1 < len(bufs) {
				d.Flags |= FlagNext
				d.Next = first + uint16(j) + 1
			}
			r.SetDesc(first+uint16(j), d)
		}
		p.heads = append(p.heads, first)
	}
	for slot := range r.Size {
		head := p.heads[int(slot)%n]
		r.d.Put(r.Avail+4+2*memory.GPA(slot), []byte{byte(head), byte(head >> 8)})
	}
	return p
}

// Refill makes all chains available once more. The size of the ring must be a
// multiple of their number, and the device must have used the ones before.
func (p *Pump) Refill() {
	p.r.avail += uint16(len(p.heads))
	p.r.SetAvail(p.r.avail)
}

// Used says whether the device used every chain that was made available.
func (p *Pump) Used() bool { return p.r.UsedIndex() == p.r.avail }
