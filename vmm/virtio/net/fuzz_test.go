package net_test

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/net"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

func FuzzDevice(f *testing.F) {
	raw := packet(net.Header{Flags: 1, CsumStart: 34, CsumOffset: 6}, frame(48, 1))
	script := append([]byte{0, byte(len(raw))}, raw...)
	script = append(script, 0, 0, 0x80)                            // at 0x8000
	script = append(script, 1, 1, 0, 0, 0, 0x80, 240, 0, 0, 0)     // descriptor 0 of the transmit queue: 60 bytes
	script = append(script, 1, 0, 0, 0, 0, 0x90, 0x02, 0x10, 2, 0) // descriptor 0 of the receive queue
	f.Add(append(script, 2, 0, 0, 2, 1, 0, 3, 1, 3, 0))
	var p *peer
	last := make(chan struct{}, 1)
	v.Fuzz(f, func(tb testing.TB) virtio.Device {
		dev, far := socket(tb, nil)
		p = far
		p.send(net.Header{Flags: 1, CsumStart: 34, CsumOffset: 6}, frame(3000, 1)) // to be received
		go mirror(p.f, []byte("the last frame of all"), last)                      // until it is closed
		return dev
	}, func(tb testing.TB, d *v.Driver) {
		d.Ring(tx).Add(d.Out(packet(net.Header{}, []byte("the last frame of all"))))
		d.Kick(tx)
		<-last
		buf := d.In(1536) // the same for all: the last frame is the last to be written
		for range 8 {
			d.Ring(rx).Add(buf)
		}
		for d.Kick(rx); ; d.Kick(rx) {
			_, n := d.Ring(rx).Wait()
			if got := d.Bytes(buf)[:n]; bytes.HasSuffix(got, []byte("the last frame of all")) {
				break
			}
			d.Ring(rx).Add(buf)
		}
	})
}

// mirror sends back what comes, as far as there is room, and tells of the one.
func mirror(f *os.File, one []byte, seen chan<- struct{}) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 1<<17)
	for {
		n, err := f.Read(buf)
		if err != nil || n == 0 {
			return
		}
		if n < net.HeaderLen+14 {
			continue
		}
		_ = conn.Write(func(fd uintptr) bool {
			_, _ = unix.Write(int(fd), buf[:n]) // dropped when there is no room
			return true
		})
		if bytes.Equal(buf[net.HeaderLen:n], one) {
			seen <- struct{}{}
		}
	}
}
