package vsock_test

import (
	"errors"
	"io"
	"sync"
	"syscall"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

func TestRefused(t *testing.T) {
	g := boot(t)
	l := g.listen(5)
	g.connect(l, 1)
	base := func(op uint16) pkt {
		return pkt{srcCID: guestCID, dstCID: vsock.HostCID, srcPort: 99, dstPort: 5, kind: 1, op: op}
	}
	for _, c := range []struct {
		name   string
		change func(*pkt)
		answer bool // a RST
	}{
		{"no listener", func(p *pkt) { p.dstPort = 6 }, true},
		{"other kind of socket", func(p *pkt) { p.kind = 2 }, true},
		{"other host", func(p *pkt) { p.dstCID = 77 }, true},
		{"foreign source", func(p *pkt) { p.srcCID = 4 }, false},
		{"data without a stream", func(p *pkt) { p.op = opRW }, true},
		{"shutdown without a stream", func(p *pkt) { p.op = opShutdown }, true},
		{"no operation", func(p *pkt) { p.op = 0 }, true},
		{"operation 65535", func(p *pkt) { p.op = 65535 }, true},
		{"reset without a stream", func(p *pkt) { p.op = opRst }, false},
		{"request for an open stream", func(p *pkt) { p.srcPort = 1 }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := base(opRequest)
			c.change(&p)
			g.transmit(p.encode())
			if !c.answer {
				g.nothing()
				return
			}
			head, n := g.d.Ring(0).Wait()
			got := decode(g.d.Bytes(v.Buf{Addr: g.rx[head].Addr, Len: n}))
			if got.op != opRst || got.srcCID != p.dstCID || got.srcPort != p.dstPort || got.dstPort != p.srcPort {
				t.Errorf("answer %+v", got)
			}
		})
	}
}

// What a packet says of its length is not believed.
func TestLyingLength(t *testing.T) {
	for _, c := range []struct {
		name string
		len  uint32
		data int
	}{
		{"more than there is", 11, 10},
		{"4 GiB", 1<<32 - 1, 10},
		{"data that is not there", 1, 0},
		{"beyond the credit", vsock.BufferSize + 1, vsock.BufferSize + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := boot(t)
			s, conn := g.connect(g.listen(5), 1)
			p := s.packet(opRW)
			p.len, p.data = c.len, make([]byte, c.data)
			raw := p.encode()
			buf := v.Buf{Addr: g.d.Alloc(uint64(len(raw))), Len: uint32(len(raw))}
			g.d.Put(buf.Addr, raw)
			g.d.Ring(1).Add(buf)
			g.d.Kick(1)
			g.expect(opRst)
			if _, err := conn.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read: %v", err)
			}
			if _, err := conn.Write(make([]byte, 10)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("write: %v", err)
			}
		})
	}
	t.Run("less than there is", func(t *testing.T) {
		g := boot(t)
		s, conn := g.connect(g.listen(5), 1)
		p := s.packet(opRW)
		p.len, p.data = 4, []byte("four and more")
		g.transmit(p.encode())
		buf := make([]byte, 100)
		if n, err := conn.Read(buf); string(buf[:n]) != "four" || err != nil {
			t.Errorf("read %q, %v", buf[:n], err)
		}
	})
}

func TestMalformed(t *testing.T) {
	g := boot(t)
	l := g.listen(5)
	_, conn := g.connect(l, 1)
	short := g.d.Out(make([]byte, 43))
	g.d.Ring(1).Add(short)
	g.d.Kick(1)
	if broken, err := g.d.Broken(); !broken || !errors.Is(err, vsock.ErrPacket) {
		t.Fatalf("broken %v, %v", broken, err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	g.d.Init() // the driver resets, the listener is still there
	g.post()
	s, conn := g.connect(l, 1)
	s.write([]byte("again"))
	if _, err := conn.Read(make([]byte, 5)); err != nil {
		t.Error(err)
	}
}

func TestShortReceiveBuffer(t *testing.T) {
	dev, err := vsock.New(guestCID)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, dev: dev, d: v.Start(t, dev)}
	g.tx = v.Buf{Addr: g.d.Alloc(1 << 16)}
	g.d.Ring(0).Add(g.d.In(44))
	g.d.Kick(0)
	(&sock{g: g, local: 1, host: 5}).send(opRequest) // wants a RST back
	if broken, err := g.d.Broken(); !broken || !errors.Is(err, vsock.ErrPacket) {
		t.Fatalf("broken %v, %v", broken, err)
	}
}

// A guest that posts no receive buffers makes neither the list of answers grow
// nor the device hang.
func TestNoReceiveBuffers(t *testing.T) {
	dev, err := vsock.New(guestCID)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, dev: dev, d: v.Start(t, dev), rx: map[uint16]v.Buf{}}
	g.tx = v.Buf{Addr: g.d.Alloc(1 << 16), Len: 44}
	g.d.Put(g.tx.Addr, (&sock{g: g, local: 1, host: 5}).packet(opRW).encode())
	const packets = 100
	for range packets {
		g.d.Ring(1).Add(g.tx)
	}
	g.d.Kick(1)
	used := 0
	for _, _, ok := g.d.Ring(1).Next(); ok; _, _, ok = g.d.Ring(1).Next() {
		used++
	}
	if used != 64 {
		t.Errorf("the device took %d packets, want 64", used)
	}
	for range packets {
		g.give(g.d.In(64))
	}
	g.d.Kick(0)
	for range packets {
		g.d.Ring(0).Wait()
	}
}

func FuzzDevice(f *testing.F) {
	for _, p := range []pkt{
		{srcCID: guestCID, dstCID: 2, srcPort: 1, dstPort: 5, kind: 1, op: opRequest, alloc: 100},
		{srcCID: guestCID, dstCID: 2, srcPort: 1, dstPort: 5, kind: 1, op: opRW, len: 4, alloc: 100, data: []byte("data")},
	} {
		raw := p.encode()
		script := append([]byte{0, byte(len(raw))}, raw...)
		script = append(script, 0, 0, 0x80)                            // at 0x8000
		script = append(script, 1, 1, 0, 0, 0, 0x80, 192, 0, 0, 0)     // descriptor 0 of the transmit queue: 48 bytes
		script = append(script, 1, 0, 0, 0, 0, 0x90, 0x02, 0x10, 2, 0) // descriptor 0 of the receive queue
		script = append(script, 2, 0, 0, 2, 1, 0, 3, 1)                // publish both, kick
		f.Add(script)
	}
	v.Fuzz(f, echoing, echoes)
}

// echoing is a device whose host echoes what comes to port 5.
func echoing(tb testing.TB) virtio.Device {
	dev, err := vsock.New(guestCID)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := dev.Listen(5)
	if err != nil {
		tb.Fatal(err)
	}
	var host sync.WaitGroup
	tb.Cleanup(func() {
		_ = dev.Close()
		host.Wait()
	})
	host.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host.Go(func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			})
		}
	})
	return dev
}

// echoes wants a stream to port 5 to work.
func echoes(tb testing.TB, d *v.Driver) {
	g := &guest{t: tb, d: d, alloc: 1 << 16}
	g.tx = v.Buf{Addr: d.Alloc(1 << 10)}
	g.rx = map[uint16]v.Buf{}
	for range 4 {
		g.give(d.In(256))
	}
	s := &sock{g: g, local: 9, host: 5}
	s.send(opRequest)
	g.expect(opResponse)
	s.write([]byte("ping"))
	if p := g.expect(opRW); string(p.data) != "ping" {
		tb.Errorf("echo of ping is %q", p.data)
	}
}
