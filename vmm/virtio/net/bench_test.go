package net_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/net"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// benchRing is a driver that reuses one buffer a descriptor and costs nothing
// beside the device.
type benchRing struct {
	mem              *memory.Memory
	q                *queue.Queue
	avail, used, buf memory.GPA
	next, seen       uint16
}

const ringSize = 256

func newBenchRing(b *testing.B, mem *memory.Memory, base memory.GPA, size uint32, write bool) *benchRing {
	r := &benchRing{mem: mem, avail: base + 16*ringSize, used: base + 20*ringSize, buf: base + 64<<10}
	flags := uint32(0)
	if write {
		flags = 2
	}
	for i := range memory.GPA(ringSize) {
		for off, v := range map[memory.GPA]uint32{0: uint32(r.buf + i*memory.GPA(size)), 8: size, 12: flags} {
			if err := mem.PutUint32(base+16*i+off, v); err != nil {
				b.Fatal(err)
			}
		}
		if err := mem.PutUint16(r.avail+4+2*i, uint16(i)); err != nil {
			b.Fatal(err)
		}
	}
	var err error
	r.q, err = queue.New(mem, queue.Layout{Size: ringSize, Desc: base, Avail: r.avail, Used: r.used}, ringSize, 0)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

func (r *benchRing) publish(b *testing.B, n int) {
	r.next += uint16(n)
	if err := r.mem.StoreUint16(r.avail+2, r.next); err != nil {
		b.Fatal(err)
	}
}

// await waits for one more used element at least and says how many there are.
func (r *benchRing) await(b *testing.B, irq <-chan struct{}) int {
	for {
		idx, err := r.mem.LoadUint16(r.used + 2)
		if err != nil {
			b.Fatal(err)
		}
		if n := idx - r.seen; n > 0 {
			r.seen = idx
			return int(n)
		}
		<-irq
	}
}

type benchTransport chan struct{}

func (t benchTransport) Interrupt() {
	select {
	case t <- struct{}{}:
	default:
	}
}
func (benchTransport) ConfigChanged()   {}
func (benchTransport) Broken(err error) { panic(err) }

func benchDevice(b *testing.B, size uint32) (dev *net.Device, p *peer, rxRing, txRing *benchRing, irq benchTransport) {
	dev, p = socket(b, nil)
	mem, err := memory.FromRegions(memory.Region{Bytes: make([]byte, 64<<20)})
	if err != nil {
		b.Fatal(err)
	}
	rxRing = newBenchRing(b, mem, 0, 2048, true)
	txRing = newBenchRing(b, mem, 16<<20, size, false)
	irq = make(benchTransport, 1)
	err = dev.Activate(virtio.Activation{Features: dev.Features(), Queues: []*queue.Queue{rxRing.q, txRing.q}, Transport: irq})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = dev.Close() })
	return
}

var benchSizes = []int{1500, 65536}

func BenchmarkTransmit(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			dev, p, _, r, _ := benchDevice(b, uint32(net.HeaderLen+size))
			buf := make([]byte, 1<<17)
			if _, err := p.f.Read(buf); err != nil { // of offloads
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				r.publish(b, 1)
				dev.Kick(1)
				if n, err := p.f.Read(buf); n != net.HeaderLen+size || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkReceive(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			dev, p, r, _, irq := benchDevice(b, 64)
			buffers := (net.HeaderLen + size + 2047) / 2048
			raw := make([]byte, net.HeaderLen+size)
			binary.BigEndian.PutUint16(raw[net.HeaderLen+12:], 0x0800)
			r.publish(b, ringSize-1)
			dev.Kick(0)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.f.Write(raw); err != nil {
					b.Fatal(err)
				}
				for n := 0; n < buffers; {
					n += r.await(b, irq)
				}
				r.publish(b, buffers)
			}
		})
	}
}
