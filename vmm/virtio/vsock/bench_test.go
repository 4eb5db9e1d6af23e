package vsock_test

import (
	"io"
	"net"
	"runtime"
	"testing"

	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

const benchPayload = 4096

// BenchmarkFromGuest is a packet of 4 KiB from the guest to Read.
func BenchmarkFromGuest(b *testing.B) {
	g := boot(b)
	s, c := g.connect(g.listen(5), 1)
	fromGuest(b, s, c)
}

// BenchmarkToGuest is a Write of 4 KiB into the guest's buffer.
func BenchmarkToGuest(b *testing.B) {
	g := boot(b)
	g.alloc = 1<<32 - 1
	s, c := g.connect(g.listen(5), 1)
	toGuest(b, s, c)
}

// BenchmarkBridgeFromGuest is the same through a Bridge and its Unix socket.
func BenchmarkBridgeFromGuest(b *testing.B) {
	s, c := benchBridge(b)
	fromGuest(b, s, c)
}

// BenchmarkBridgeToGuest is the same through a Bridge and its Unix socket.
func BenchmarkBridgeToGuest(b *testing.B) {
	s, c := benchBridge(b)
	toGuest(b, s, c)
}

// benchBridge opens a stream from the guest to a Unix socket.
func benchBridge(b *testing.B) (*sock, net.Conn) {
	g := bootBridged(b)
	g.alloc = 1<<32 - 1
	return g.accept(g.serve(5), 1, 5)
}

// fromGuest sends packets on s and reads them from c.
func fromGuest(b *testing.B, s *sock, c io.Reader) {
	d, r := s.g.d, s.g.d.Ring(1)
	p := s.packet(opRW)
	p.len, p.data = benchPayload, make([]byte, benchPayload)
	raw := p.encode()
	d.Put(s.g.tx.Addr, raw)
	for i := range r.Size { // every entry of the ring is the same packet
		r.SetDesc(i, v.Desc{Addr: s.g.tx.Addr, Len: uint32(len(raw))})
	}
	used, buf := r.UsedIndex(), make([]byte, benchPayload)
	b.SetBytes(benchPayload)
	b.ReportAllocs()
	for b.Loop() {
		used++
		r.SetAvail(used)
		d.Transport.Kick(1)
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// toGuest writes to c and waits until the guest has it.
func toGuest(b *testing.B, s *sock, c io.Writer) {
	d, r := s.g.d, s.g.d.Ring(0)
	rx := d.In(benchPayload + 44)
	for i := range r.Size {
		r.SetDesc(i, v.Desc{Addr: rx.Addr, Len: rx.Len, Flags: v.FlagWrite})
	}
	used, buf := r.UsedIndex(), make([]byte, benchPayload)
	r.SetAvail(used)
	b.SetBytes(benchPayload)
	b.ReportAllocs()
	for b.Loop() {
		used++
		r.SetAvail(used)
		d.Transport.Kick(0)
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
		for r.UsedIndex() != used {
			runtime.Gosched()
		}
		if s.fwd += benchPayload; used%64 == 0 {
			b.StopTimer()
			s.send(opCreditUpdate)
			b.StartTimer()
		}
	}
}
