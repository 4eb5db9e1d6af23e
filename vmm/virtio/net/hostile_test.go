package net_test

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio/net"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// echoes says that packets go both ways.
func echoes(tb testing.TB, d *v.Driver, p *peer) {
	tb.Helper()
	want := frame(100, 7)
	d.Ring(tx).Add(d.Out(packet(net.Header{}, want)))
	d.Kick(tx)
	for {
		if _, got := p.next(); bytes.Equal(got, want) {
			break // others were sent before
		}
	}
	bufs := offer(d, 4, 1536)
	p.send(net.Header{}, want)
	if _, got := received(tb, d, bufs); !bytes.Equal(got, want) {
		tb.Errorf("received %d bytes", len(got))
	}
}

// A packet that lies in its header is dropped and counted; the next one passes.
func TestLyingHeader(t *testing.T) {
	dev, d, p := boot(t, nil)
	ok := net.Header{Flags: net.NeedsCsum, GSOType: net.GSOTCPv4, HdrLen: 54, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
	for name, c := range map[string]struct {
		change func(*net.Header)
		size   int
	}{
		"checksum past the end": {func(h *net.Header) { h.CsumStart = 4000 }, 3000},
		"segments of a byte":    {func(h *net.Header) { h.GSOSize = 1 }, 60000},
		"no such segmentation":  {func(h *net.Header) { h.GSOType = 0x7f }, 3000},
		"no frame":              {func(h *net.Header) {}, 0},
		"half an address":       {func(h *net.Header) {}, 3},
		"longer than a packet":  {func(h *net.Header) {}, net.MaxFrame + 1},
	} {
		before := dev.Stats().TXDropped
		h := ok
		c.change(&h)
		d.Ring(tx).Add(d.Out(packet(h, frame(c.size, 1))))
		d.Kick(tx)
		d.Ring(tx).Wait()
		if got := dev.Stats().TXDropped; got != before+1 {
			t.Errorf("%s: %d dropped", name, got-before)
		}
	}
	if broken, err := d.Broken(); broken {
		t.Errorf("broken: %v", err)
	}
	echoes(t, d, p)
}

// What is no packet at all breaks the device, until the driver resets it.
func TestMalformed(t *testing.T) {
	for _, c := range []struct {
		name string
		ring int
		bufs func(d *v.Driver) []v.Buf
	}{
		{"transmit without a header", tx, func(d *v.Driver) []v.Buf { return []v.Buf{d.Out(make([]byte, 11))} }},
		{"transmit into a writable buffer", tx, func(d *v.Driver) []v.Buf { return []v.Buf{d.Out(make([]byte, 64)), d.In(64)} }},
		{"receive from a readable buffer", rx, func(d *v.Driver) []v.Buf { return []v.Buf{d.Out(make([]byte, 64)), d.In(64)} }},
		{"receive without room for a header", rx, func(d *v.Driver) []v.Buf { return []v.Buf{d.In(11)} }},
		{"beyond the end of memory", tx, func(*v.Driver) []v.Buf { return []v.Buf{{Addr: v.LowSize - 10, Len: 64}} }},
		{"into the hole", rx, func(*v.Driver) []v.Buf { return []v.Buf{{Addr: memory.HoleEnd - 10, Len: 64, Write: true}} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, d, p := boot(t, nil)
			d.Ring(c.ring).Add(c.bufs(d)...)
			d.Kick(c.ring)
			waitBroken(t, d)
			d.Init()
			echoes(t, d, p)
		})
	}
}

func waitBroken(t *testing.T, d *v.Driver) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		if broken, err := d.Broken(); broken {
			if err == nil {
				t.Error("broken without a cause")
			}
			return
		}
		select {
		case <-d.Interrupts():
			d.Acknowledge()
		case <-limit:
			t.Fatal("the device goes on")
		}
	}
}

// Chains of nearly 4 GiB, made of the same memory again and again: as a packet
// one is dropped, as a receive buffer it is as good as 64 KiB.
func TestGiganticChains(t *testing.T) {
	dev, d, p := boot(t, nil)
	big := make([]v.Buf, 250)
	for i := range big {
		big[i] = v.Buf{Addr: 0x200000, Len: 1 << 20}
	}
	d.Ring(tx).Add(big...)
	d.Kick(tx)
	d.Ring(tx).Wait()
	if s := dev.Stats(); s.TXDropped != 1 {
		t.Errorf("counted %+v", s)
	}
	for i := range big {
		big[i].Write = true
	}
	d.Ring(rx).Add(big...)
	d.Kick(rx)
	want := frame(net.MaxFrame, 3)
	p.send(net.Header{}, want)
	_, n := d.Ring(rx).Wait()
	if got := d.Bytes(v.Buf{Addr: 0x200000 + net.HeaderLen, Len: net.MaxFrame}); n != net.HeaderLen+net.MaxFrame || !bytes.Equal(got, want) {
		t.Errorf("received %d bytes", n)
	}
}

// All buffers of the guest together are too small for a packet: it is dropped,
// and later ones come through.
func TestTinyBuffers(t *testing.T) {
	for _, c := range []struct {
		name string
		bufs func(d *v.Driver)
	}{
		{"small chains", func(d *v.Driver) {
			for range 256 {
				d.Ring(rx).Add(d.In(net.HeaderLen))
			}
		}},
		{"long chains of bytes", func(d *v.Driver) {
			bytewise := make([]v.Buf, 256)
			for i := range bytewise {
				bytewise[i] = d.In(1)
			}
			for range 8 {
				d.Ring(rx).AddIndirect(bytewise...)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev, d, p := boot(t, nil)
			c.bufs(d)
			d.Kick(rx)
			p.send(net.Header{}, frame(20000, 1))
			p.send(net.Header{}, frame(50, 2))
			if _, n := d.Ring(rx).Wait(); n == 0 {
				t.Error("nothing written")
			}
			if s := dev.Stats(); s.RXDropped != 1 || s.RXPackets != 1 {
				t.Errorf("counted %+v", s)
			}
		})
	}
}

// A guest with few buffers does not get a large packet, nor is it kept from the
// ones behind it.
func TestFewBuffers(t *testing.T) {
	dev, d, p := boot(t, nil)
	bufs := offer(d, 3, 1000)
	p.send(net.Header{}, frame(5000, 1))
	p.send(net.Header{}, frame(100, 2))
	if _, got := received(t, d, bufs); !bytes.Equal(got, frame(100, 2)) {
		t.Errorf("received %d bytes", len(got))
	}
	if s := dev.Stats(); s.RXDropped != 1 {
		t.Errorf("counted %+v", s)
	}
}

// Without receive buffers the device waits, and ends when it is told to.
func TestNoReceiveBuffers(t *testing.T) {
	_, d, p := boot(t, nil)
	for range 5 {
		p.send(net.Header{}, frame(60, 1))
	}
	d.Init()
	bufs := offer(d, 8, 1536)
	for range 5 {
		if _, got := received(t, d, bufs); !bytes.Equal(got, frame(60, 1)) {
			t.Errorf("%d bytes", len(got))
		}
	}
}

// A guest that notifies without end, with nothing to send, with a full queue and
// out of order, makes nothing grow and starves nobody.
func TestFlood(t *testing.T) {
	dev, d, p := boot(t, nil)
	small := d.Out(packet(net.Header{}, frame(60, 1)))
	goroutines := runtime.NumGoroutine()
	var guests sync.WaitGroup
	for range 4 {
		guests.Go(func() {
			for range 20000 {
				d.Transport.Kick(tx)
				d.Transport.Kick(rx)
				d.Transport.Kick(2)
			}
		})
	}
	for range 200 {
		d.Ring(tx).Add(small)
	}
	d.Kick(tx)
	for range 200 {
		p.next()
		d.Ring(tx).Wait()
	}
	guests.Wait()
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, before %d", n, goroutines)
	}
	if s := dev.Stats(); s.TXPackets != 200 {
		t.Errorf("counted %+v", s)
	}
	echoes(t, d, p)
}

// Reset in the middle of traffic both ways, with the network's end full or
// flooding: afterwards the device leaves the rings alone, and comes up again.
func TestResetWhileBusy(t *testing.T) {
	_, d, p := boot(t, nil)
	stop := make(chan struct{})
	var network sync.WaitGroup
	network.Go(func() {
		raw := packet(net.Header{}, frame(1514, 1))
		_ = p.f.SetWriteDeadline(time.Time{})
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := p.f.Write(raw); err != nil {
					return
				}
			}
		}
	})
	for range 50 {
		for range 100 {
			d.Ring(tx).Add(v.Buf{Addr: 0x200000, Len: net.HeaderLen + 9000})
			d.Ring(rx).Add(v.Buf{Addr: 0x300000, Len: 1536, Write: true})
		}
		d.Put(0x200000, make([]byte, net.HeaderLen))
		d.Kick(rx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.Transport.Kick(tx)
		}()
		d.SetReg(v.RegStatus, 0)
		a, b := d.Ring(tx).UsedIndex(), d.Ring(rx).UsedIndex()
		<-done
		if x, y := d.Ring(tx).UsedIndex(), d.Ring(rx).UsedIndex(); x != a || y != b {
			t.Fatalf("used indices went from %d, %d to %d, %d after reset", a, b, x, y)
		}
		d.Init()
	}
	close(stop)
	_ = p.f.SetWriteDeadline(time.Unix(1, 0))
	network.Wait()
	_ = p.f.SetWriteDeadline(time.Time{})
	drain(d)
	want := frame(100, 7)
	d.Ring(tx).Add(d.Out(packet(net.Header{}, want)))
	d.Kick(tx)
	for {
		if _, got := p.next(); bytes.Equal(got, want) {
			return
		}
	}
}

// drain receives whatever the network sent before.
func drain(d *v.Driver) {
	offer(d, 250, 1536)
}

// The network's end goes away: the guest sees its link down and its packets are
// dropped; nothing spins.
func TestNetworkGone(t *testing.T) {
	dev, d, p := boot(t, nil)
	offer(d, 4, 1536)
	_ = p.f.Close()
	limit := time.After(10 * time.Second)
	for status := []byte{1}; status[0]&1 != 0; dev.ReadConfig(6, status) {
		select {
		case <-d.Interrupts():
			d.Acknowledge()
		case <-limit:
			t.Fatal("the link is up")
		}
	}
	d.Ring(tx).Add(d.Out(packet(net.Header{}, frame(60, 1))))
	d.Kick(tx)
	d.Ring(tx).Wait()
	if s := dev.Stats(); s.TXDropped != 1 {
		t.Errorf("counted %+v", s)
	}
	d.Init() // still a device
}

// Close leaves no goroutine and no descriptor, also after use.
func TestCloseLeavesNothing(t *testing.T) {
	count := func() (goroutines, fds int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return runtime.NumGoroutine(), len(entries)
	}
	g, f := count()
	for range 20 {
		dev, d, p := boot(t, nil)
		echoes(t, d, p)
		if err := dev.Close(); err != nil {
			t.Fatal(err)
		}
		dev.Kick(tx)
		dev.Kick(rx)
		if err := p.f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Fatal(err)
		}
	}
	if g2, f2 := count(); g2 > g || f2 > f {
		t.Errorf("%d goroutines and %d descriptors, before %d and %d", g2, f2, g, f)
	}
}
