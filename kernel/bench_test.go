package kernel

import "testing"

// BenchmarkVmlinux is what a run pays to have the uncompressed kernel.
func BenchmarkVmlinux(b *testing.B) {
	k := fetched(b)
	b.Run("cached", func(b *testing.B) {
		b.Setenv("DUPLEX_CACHE", b.TempDir())
		if _, err := k.Vmlinux(b.Context()); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := k.Vmlinux(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			b.Setenv("DUPLEX_CACHE", b.TempDir())
			if _, err := k.Vmlinux(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkFindNewest(b *testing.B) {
	fetched(b)
	for b.Loop() {
		if _, err := Find(""); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkModules(b *testing.B) {
	k := fetched(b)
	for b.Loop() {
		if _, err := k.Modules("erofs", "overlay", "virtio_blk", "vmw_vsock_virtio_transport"); err != nil {
			b.Fatal(err)
		}
	}
}
