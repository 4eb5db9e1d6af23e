package blk_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio/blk"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// benchmark makes the same request again and again, several at a time.
func benchmark(b *testing.B, o blk.Options, kind uint32, n uint32) {
	o.Path = filepath.Join(b.TempDir(), "disk")
	if err := os.WriteFile(o.Path, make([]byte, 2<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, batch := range []int{1, 16} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			dev := openWith(b, o)
			d := v.Start(b, dev)
			header, status := d.Out(request(kind, 8)), d.In(1)
			p := v.NewPump(d.Ring(0), batch, header, v.Buf{Addr: 0x200000, Len: n, Write: kind == 0}, status)
			b.ReportAllocs()
			b.SetBytes(int64(batch) * int64(n))
			for b.Loop() {
				p.Refill()
				dev.Kick(0)
			}
			if !p.Used() || d.Bytes(status)[0] != 0 {
				b.Errorf("used %v, status %d", p.Used(), d.Bytes(status)[0])
			}
			if err := dev.Close(); err != nil { // for the lock
				b.Error(err)
			}
		})
	}
}

func BenchmarkRead4K(b *testing.B)  { benchmark(b, blk.Options{}, 0, 4096) }
func BenchmarkRead1M(b *testing.B)  { benchmark(b, blk.Options{}, 0, 1<<20) }
func BenchmarkWrite4K(b *testing.B) { benchmark(b, blk.Options{}, 1, 4096) }
func BenchmarkWrite1M(b *testing.B) { benchmark(b, blk.Options{}, 1, 1<<20) }
