package vsock_test

import (
	"io"
	"testing"

	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

const benchPayload = 4096

// BenchmarkFromGuest is a packet of 4 KiB from the guest to Read.
func BenchmarkFromGuest(b *testing.B) {
	g := boot(b)
	s, c := g.connect(g.listen(5), 1)
	p := s.packet(opRW)
	p.len, p.data = benchPayload, make([]byte, benchPayload)
	raw := p.encode()
	g.d.Put(g.tx.Addr, raw)
	r := g.d.Ring(1)
	used := r.UsedIndex()
	for i := range r.Size { // every entry of the ring is the same packet
		r.SetDesc(i, v.Desc{Addr: g.tx.Addr, Len: uint32(len(raw))})
	}
	buf := make([]byte, benchPayload)
	b.SetBytes(benchPayload)
	b.ReportAllocs()
	for b.Loop() {
		used++
		r.SetAvail(used)
		g.d.Transport.Kick(1)
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkToGuest is a Write of 4 KiB into the guest's buffer.
func BenchmarkToGuest(b *testing.B) {
	g := boot(b)
	g.alloc = 1<<32 - 1
	s, c := g.connect(g.listen(5), 1)
	buf := make([]byte, benchPayload)
	r := g.d.Ring(0)
	rx := g.d.In(benchPayload + 44)
	for i := range r.Size {
		r.SetDesc(i, v.Desc{Addr: rx.Addr, Len: rx.Len, Flags: v.FlagWrite})
	}
	b.SetBytes(benchPayload)
	b.ReportAllocs()
	used := r.UsedIndex()
	for b.Loop() {
		used++
		r.SetAvail(used)
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
		if s.fwd += benchPayload; used%64 == 0 {
			b.StopTimer()
			s.send(opCreditUpdate)
			b.StartTimer()
		}
	}
}
