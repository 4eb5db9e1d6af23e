package blk_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio/blk"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// writable starts a read-write device with a driver.
func writable(tb testing.TB, o blk.Options) (d *v.Driver, path string, data []byte) {
	tb.Helper()
	o.Path, data = diskFile(tb)
	return v.Start(tb, openWith(tb, o)), o.Path, data
}

// do makes one request with payload p and returns its status.
func do(tb testing.TB, d *v.Driver, kind uint32, sector uint64, p ...[]byte) byte {
	tb.Helper()
	bufs := []v.Buf{d.Out(request(kind, sector))}
	for _, b := range p {
		if len(b) > 0 {
			bufs = append(bufs, d.Out(b))
		}
	}
	status := d.In(1)
	d.Put(status.Addr, []byte{0xee})
	d.Ring(0).Add(append(bufs, status)...)
	d.Kick(0)
	d.Ring(0).Wait()
	return d.Bytes(status)[0]
}

// span is the payload of DISCARD and WRITE_ZEROES.
func span(sector uint64, sectors, flags uint32) []byte {
	p := binary.LittleEndian.AppendUint64(nil, sector)
	p = binary.LittleEndian.AppendUint32(p, sectors)
	return binary.LittleEndian.AppendUint32(p, flags)
}

// Every kind of request that changes the disk, and what the file holds then.
func TestWrites(t *testing.T) {
	text := bytes.Repeat([]byte("duplex! "), 128) // two sectors
	for _, c := range []struct {
		name   string
		kind   uint32
		sector uint64
		data   [][]byte
		status byte
		change func(disk []byte) // nil: none
	}{
		{"write", 1, 3, [][]byte{text}, 0, func(p []byte) { copy(p[3*512:], text) }},
		{"write in pieces", 1, 3, [][]byte{text[:1], text[1:700], text[700:]}, 0, func(p []byte) { copy(p[3*512:], text) }},
		{"write the last sectors", 1, sectors - 2, [][]byte{text}, 0, func(p []byte) { copy(p[(sectors-2)*512:], text) }},
		{"write nothing", 1, 3, nil, 0, nil},
		{"write past the end", 1, sectors - 1, [][]byte{text}, 1, nil},
		{"write far past the end", 1, 1 << 63, [][]byte{text}, 1, nil},
		{"write where the sector wraps", 1, 1 << 55, [][]byte{text}, 1, nil},
		{"write half a sector", 1, 0, [][]byte{text[:256]}, 1, nil},
		{"flush", 4, 0, nil, 0, nil},
		{"write zeroes", 13, 0, [][]byte{span(5, 3, 0)}, 0, func(p []byte) { clear(p[5*512 : 8*512]) }},
		{"write zeroes, may unmap", 13, 0, [][]byte{span(8, 16, 1)}, 0, func(p []byte) { clear(p[8*512 : 24*512]) }},
		{"write zeroes, two segments", 13, 0, [][]byte{span(0, 1, 0), span(9, 1, 1)}, 1, nil},
		{"write zeroes, more than a request may", 13, 0, [][]byte{span(0, blk.MaxRequest/512+1, 0)}, 1, nil},
		{"write zeroes, nothing", 13, 0, [][]byte{span(9, 0, 0)}, 0, nil},
		{"write zeroes, sector wraps", 13, 0, [][]byte{span(1<<55, 1, 0)}, 1, nil},
		{"write zeroes, all bits", 13, 0, [][]byte{span(1<<64-1, 1<<32-1, 1)}, 1, nil},
		{"write zeroes, unknown flag", 13, 0, [][]byte{span(0, 1, 2)}, 2, nil},
		{"write zeroes, no segment", 13, 0, nil, 1, nil},
		{"write zeroes, part of a segment", 13, 0, [][]byte{span(0, 1, 0)[:9]}, 1, nil},
		{"discard", 11, 0, [][]byte{span(8, 8, 0)}, 0, func(p []byte) { clear(p[8*512 : 16*512]) }}, // a hole reads as zero
		{"discard, two segments", 11, 0, [][]byte{span(0, 8, 0), span(16, 8, 0)}, 0, func(p []byte) { clear(p[:8*512]); clear(p[16*512 : 24*512]) }},
		{"discard, a segment past the end", 11, 0, [][]byte{span(0, 8, 0), span(sectors, 1, 0)}, 1, nil},
		{"discard, 17 segments", 11, 0, [][]byte{bytes.Repeat(span(0, 1, 0), 17)}, 1, nil},
		{"discard, unmap", 11, 0, [][]byte{span(8, 8, 1)}, 2, nil},
		{"discard past the end", 11, 0, [][]byte{span(sectors-1, 2, 0)}, 1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, o := range map[string]blk.Options{"cached": {}, "direct": {Direct: true}} {
				d, path, want := writable(t, o)
				if s := do(t, d, c.kind, c.sector, c.data...); s != c.status {
					t.Errorf("%s: status %d, want %d", name, s, c.status)
				}
				if c.change != nil {
					c.change(want)
				}
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: the disk is not as expected: %v", name, err)
				}
			}
		})
	}
}
