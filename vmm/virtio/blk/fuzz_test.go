package blk_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/blk"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

func FuzzDevice(f *testing.F) {
	seed(f)
	path, data := diskFile(f)
	v.Fuzz(f, func(tb testing.TB) virtio.Device { return open(tb, path) }, func(tb testing.TB, d *v.Driver) { readFirst(tb, d, data) })
}

// FuzzWrite is FuzzDevice on a disk that can be written, in memory.
func FuzzWrite(f *testing.F) {
	seed(f)
	v.Fuzz(f, memDisk, writeAndRead)
}

// FuzzDirect is FuzzWrite with O_DIRECT, and so with bounce buffers.
func FuzzDirect(f *testing.F) {
	seed(f)
	path, _ := diskFile(f)
	v.Fuzz(f, func(tb testing.TB) virtio.Device {
		return openWith(tb, blk.Options{Path: path, Direct: true})
	}, writeAndRead)
}

// seed adds a request of each kind.
func seed(f *testing.F) {
	// Memory at 0x2000 holds the header and at 0x3000 a segment; a chain of three
	// descriptors, whose second has this length and these flags.
	chain := func(kind uint32, length, flags byte) []byte {
		s := append([]byte{0, 16}, append(request(kind, 0), 0, 0, 32)...)
		s = append(s, append([]byte{0, 16}, append(span(1, 2, 0), 0, 0, 48)...)...)
		s = append(s, 1, 0, 0, 0, 0, 32, 64, 0, 1, 1)
		s = append(s, 1, 0, 1, 0, 0, 48, length, 0, flags|1, 2)
		return append(s, 1, 0, 2, 0, 0, 64, 4, 0, 2, 0, 2, 0, 0, 3, 0)
	}
	f.Add(chain(0, 14, 2))  // IN, 512 bytes
	f.Add(chain(1, 14, 0))  // OUT
	f.Add(chain(4, 64, 0))  // FLUSH
	f.Add(chain(8, 80, 2))  // GET_ID
	f.Add(chain(11, 64, 0)) // DISCARD, 16 bytes
	f.Add(chain(13, 64, 0)) // WRITE_ZEROES
}

// writeAndRead says whether the disk works.
func writeAndRead(tb testing.TB, d *v.Driver) {
	text := bytes.Repeat([]byte("duplex! "), 64)
	if s := do(tb, d, 1, 7, text); s != 0 {
		tb.Errorf("write: status %d", s)
	}
	in := d.In(512)
	d.Ring(0).Add(d.Out(request(0, 7)), in, d.In(1))
	d.Kick(0)
	d.Ring(0).Wait()
	if !bytes.Equal(d.Bytes(in), text) {
		tb.Error("wrong data")
	}
}

// memDisk is a disk of 64 KiB in memory, whose size must be the same at the end.
func memDisk(tb testing.TB) virtio.Device {
	fd, err := unix.MemfdCreate("disk", unix.MFD_CLOEXEC)
	if err != nil {
		tb.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "disk")
	if err := f.Truncate(64 << 10); err != nil {
		tb.Fatal(err)
	}
	dev, err := blk.New(f, blk.Options{Queues: 2})
	if err != nil {
		tb.Fatal(err)
	}
	again, err := unix.Dup(fd) // the device closes fd
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		var st unix.Stat_t
		if err := errors.Join(unix.Fstat(again, &st), unix.Close(again)); err != nil || st.Size != 64<<10 {
			tb.Errorf("the disk has %d bytes, %v", st.Size, err)
		}
	})
	return dev
}
