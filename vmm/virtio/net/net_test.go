package net_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/net"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

const (
	rx = 0
	tx = 1
)

// peer is the far end of a Socket: the network.
type peer struct {
	tb testing.TB
	f  *os.File
}

// send puts a packet on the wire.
func (p *peer) send(h net.Header, frame []byte) {
	p.tb.Helper()
	if _, err := p.f.Write(packet(h, frame)); err != nil {
		p.tb.Fatal(err)
	}
}

// next returns the next packet; what tells of offloads is left out.
func (p *peer) next() (net.Header, []byte) {
	p.tb.Helper()
	buf := make([]byte, 1<<17)
	for {
		if err := p.f.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			p.tb.Fatal(err)
		}
		n, err := p.f.Read(buf)
		if err != nil {
			p.tb.Fatal(err)
		}
		if _, ok := net.ParseOffloadMessage(buf[:n]); ok {
			continue
		}
		if n < net.HeaderLen {
			p.tb.Fatalf("packet of %d bytes", n)
		}
		return net.ParseHeader(buf), buf[net.HeaderLen:n]
	}
}

func packet(h net.Header, frame []byte) []byte {
	p := make([]byte, net.HeaderLen, net.HeaderLen+len(frame))
	h.Put(p)
	return append(p, frame...)
}

// frame is an Ethernet frame of n bytes that differs from others by its tag.
func frame(n int, tag byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i>>8) ^ byte(i) ^ tag
	}
	return p
}

func pair(tb testing.TB) (device, far *os.File) {
	tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		tb.Fatal(err)
	}
	device, far = os.NewFile(uintptr(fds[0]), "device"), os.NewFile(uintptr(fds[1]), "network")
	tb.Cleanup(func() { _ = far.Close() })
	return device, far
}

// socket makes a device whose network is the peer.
func socket(tb testing.TB, change func(*net.Options)) (*net.Device, *peer) {
	tb.Helper()
	near, far := pair(tb)
	s, err := net.NewSocket(near)
	if err != nil {
		tb.Fatal(err)
	}
	o := net.Options{Backend: s, MAC: net.RandomMAC()}
	if change != nil {
		change(&o)
	}
	dev, err := net.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	return dev, &peer{tb, far}
}

// boot is a device with its driver up.
func boot(tb testing.TB, change func(*net.Options)) (*net.Device, *v.Driver, *peer) {
	tb.Helper()
	dev, p := socket(tb, change)
	return dev, v.Start(tb, dev), p
}

// received waits for a packet in buffers of the receive queue.
func received(tb testing.TB, d *v.Driver, bufs map[uint16]v.Buf) (net.Header, []byte) {
	tb.Helper()
	head, n := d.Ring(rx).Wait()
	p := d.Bytes(v.Buf{Addr: bufs[head].Addr, Len: n})
	h := net.ParseHeader(p)
	for range h.NumBuffers - 1 {
		head, n, ok := d.Ring(rx).Next()
		if !ok {
			tb.Fatal("the packet's buffers were not published together")
		}
		p = append(p, d.Bytes(v.Buf{Addr: bufs[head].Addr, Len: n})...)
	}
	return h, p[net.HeaderLen:]
}

func offer(d *v.Driver, count int, size uint32) map[uint16]v.Buf {
	bufs := map[uint16]v.Buf{}
	for range count {
		b := d.In(size)
		bufs[d.Ring(rx).Add(b)] = b
	}
	d.Kick(rx)
	return bufs
}

func TestConfig(t *testing.T) {
	mac := [6]byte{2, 1, 2, 3, 4, 5}
	dev, _ := socket(t, func(o *net.Options) { o.MAC, o.MTU = mac, 9000 })
	t.Cleanup(func() { _ = dev.Close() })
	got := make([]byte, 16)
	dev.ReadConfig(0, got)
	want := append(append([]byte{}, mac[:]...), 1, 0, 1, 0, 0x28, 0x23, 0, 0, 0, 0)
	if !bytes.Equal(got, want) {
		t.Errorf("configuration % x, want % x", got, want)
	}
	dev.ReadConfig(1<<40, got)
	if !bytes.Equal(got, make([]byte, 16)) {
		t.Errorf("past the end: % x", got)
	}
}

func TestNewRefuses(t *testing.T) {
	near, _ := pair(t)
	s, err := net.NewSocket(near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for name, o := range map[string]net.Options{
		"no backend":    {MAC: net.RandomMAC()},
		"no address":    {Backend: s},
		"group address": {Backend: s, MAC: [6]byte{1}},
		"tiny MTU":      {Backend: s, MAC: net.RandomMAC(), MTU: 67},
	} {
		if _, err := net.New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if _, err := net.NewSocket(r); err == nil {
		t.Error("a pipe passes as a socket")
	}
}

func TestTransmit(t *testing.T) {
	dev, d, p := boot(t, nil)
	tso := net.Header{Flags: net.NeedsCsum, GSOType: net.GSOTCPv4, HdrLen: 54, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
	for _, c := range []struct {
		name  string
		head  net.Header
		size  int
		split []int // lengths of the first buffers
	}{
		{"small", net.Header{}, 60, nil},
		{"header apart", net.Header{}, 1514, []int{12}},
		{"header in pieces", net.Header{}, 1514, []int{1, 4, 10, 100}},
		{"checksum", net.Header{Flags: net.NeedsCsum, CsumStart: 34, CsumOffset: 6}, 200, nil},
		{"segmentation", tso, net.MaxFrame, []int{12, 54, 32768}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := frame(c.size, 1)
			raw := packet(c.head, want)
			var bufs []v.Buf
			for _, n := range c.split {
				bufs, raw = append(bufs, d.Out(raw[:n])), raw[n:]
			}
			head := d.Ring(tx).Add(append(bufs, d.Out(raw))...)
			d.Kick(tx)
			if h, got := p.next(); h != c.head || !bytes.Equal(got, want) {
				t.Errorf("header %+v, want %+v; %d bytes, want %d", h, c.head, len(got), len(want))
			}
			if got, n := d.Ring(tx).Wait(); got != head || n != 0 {
				t.Errorf("used %d with %d bytes", got, n)
			}
		})
	}
	if s := dev.Stats(); s.TXPackets != 5 || s.TXDropped != 0 {
		t.Errorf("counted %+v", s)
	}
}

func TestReceive(t *testing.T) {
	for _, c := range []struct {
		name    string
		size    int
		buffers uint32
		uses    uint16
	}{
		{"one buffer", 1000, 1536, 1},
		{"exactly one", 1524, 1536, 1},
		{"one byte more", 1525, 1536, 2},
		{"64 KiB", net.MaxFrame, 1536, 43},
		{"tiny buffers", 1000, net.HeaderLen, 85},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev, d, p := boot(t, nil)
			bufs := offer(d, 200, c.buffers)
			for i := range 2 {
				want := frame(c.size, byte(i))
				p.send(net.Header{Flags: net.DataValid}, want)
				h, got := received(t, d, bufs)
				if h.NumBuffers != c.uses || h.Flags != net.DataValid || !bytes.Equal(got, want) {
					t.Errorf("%d bytes in %d buffers, want %d in %d", len(got), h.NumBuffers, len(want), c.uses)
				}
			}
			if s := dev.Stats(); s.RXPackets != 2 || s.RXDropped != 0 || s.RXBytes != uint64(2*c.size) {
				t.Errorf("counted %+v", s)
			}
		})
	}
}

// A packet for which there are too few buffers yet is completed when the guest
// offers more.
func TestReceiveSpill(t *testing.T) {
	_, d, p := boot(t, nil)
	bufs := offer(d, 2, 1000)
	p.send(net.Header{}, frame(5000, 1))
	p.send(net.Header{}, frame(100, 2))
	for range 3 {
		for head, b := range offer(d, 2, 1500) {
			bufs[head] = b
		}
	}
	if h, got := received(t, d, bufs); h.NumBuffers != 5 || !bytes.Equal(got, frame(5000, 1)) {
		t.Errorf("%d bytes in %d buffers", len(got), h.NumBuffers)
	}
	if _, got := received(t, d, bufs); !bytes.Equal(got, frame(100, 2)) {
		t.Errorf("then %d bytes", len(got))
	}
}

// Without mergeable buffers a packet has one chain, or is dropped.
func TestReceiveUnmerged(t *testing.T) {
	dev, p := socket(t, nil)
	d := v.Attach(t, dev)
	d.Refuse = net.FeatureMrgRxbuf
	d.Init()
	a, b := d.In(12), d.In(1514)
	for range 2 {
		d.Ring(rx).Add(a, b)
	}
	d.Kick(rx)
	p.send(net.Header{}, frame(1515, 1))
	p.send(net.Header{}, frame(1514, 2))
	_, n := d.Ring(rx).Wait()
	if n != 1526 || !bytes.Equal(d.Bytes(b), frame(1514, 2)) || net.ParseHeader(d.Bytes(a)).NumBuffers != 1 {
		t.Errorf("%d bytes, header %+v", n, net.ParseHeader(d.Bytes(a)))
	}
	if s := dev.Stats(); s.RXDropped != 1 || s.RXPackets != 1 {
		t.Errorf("counted %+v", s)
	}
}

// The stack hears which offloads the guest takes, less those that need one it
// does not take.
func TestOffloadMessage(t *testing.T) {
	dev, p := socket(t, nil)
	d := v.Attach(t, dev)
	d.Refuse = net.FeatureGuestCsum
	d.Init()
	buf := make([]byte, 100)
	n, err := p.f.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := net.ParseOffloadMessage(buf[:n])
	if want := uint64(net.FeatureCsum | net.FeatureHostTSO4 | net.FeatureHostTSO6); !ok || got != want {
		t.Errorf("offloads %#x, %v, want %#x", got, ok, want)
	}
}

// With the network's end full the guest's packets wait, in order, and the guest
// is not held up by its kick.
func TestBackPressure(t *testing.T) {
	_, d, p := boot(t, nil)
	const size, count = 8000, 200
	buf := v.Buf{Len: net.HeaderLen + size}
	for i := range count {
		buf.Addr = d.Alloc(uint64(buf.Len))
		raw := packet(net.Header{}, frame(size, 0))
		binary.LittleEndian.PutUint32(raw[net.HeaderLen:], uint32(i))
		d.Put(buf.Addr, raw)
		d.Ring(tx).Add(buf)
	}
	d.Kick(tx)
	if n := d.Ring(tx).UsedIndex(); n >= count {
		t.Fatalf("%d packets are gone with nobody reading", n)
	}
	for i := range count {
		if _, got := p.next(); binary.LittleEndian.Uint32(got) != uint32(i) {
			t.Fatalf("packet %d is %d", i, binary.LittleEndian.Uint32(got))
		}
		d.Ring(tx).Wait()
	}
}

// stepLimiter lets a packet pass when the test says so.
type stepLimiter struct {
	calls chan [2]int
	wait  chan time.Duration
}

func (l stepLimiter) Take(packets, bytes int) time.Duration {
	l.calls <- [2]int{packets, bytes}
	return <-l.wait
}

func TestLimit(t *testing.T) {
	l := stepLimiter{make(chan [2]int, 9), make(chan time.Duration, 9)}
	_, d, p := boot(t, func(o *net.Options) { o.TX, o.RX = l, l })
	h := net.Header{Flags: net.NeedsCsum, GSOType: net.GSOTCPv4, HdrLen: 54, GSOSize: 1000, CsumStart: 34, CsumOffset: 16}
	allow := func(waits ...time.Duration) {
		for _, w := range waits {
			l.wait <- w
		}
	}
	asked := func(want ...[2]int) {
		t.Helper()
		for _, w := range want {
			if got := <-l.calls; got != w {
				t.Errorf("the limiter was asked for %v, want %v", got, w)
			}
		}
	}
	allow(time.Millisecond, time.Millisecond, 0, 0)
	d.Ring(tx).Add(d.Out(packet(h, frame(54+3001, 1))))
	d.Ring(tx).Add(d.Out(packet(net.Header{}, frame(64, 2))))
	d.Kick(tx)
	p.next()
	p.next()
	asked([2]int{4, 3055}, [2]int{4, 3055}, [2]int{4, 3055}, [2]int{1, 64})
	allow(time.Millisecond, 0, 0)
	bufs := offer(d, 4, 1536)
	for i := range 2 {
		p.send(net.Header{}, frame(70+i, 1))
	}
	for i := range 2 {
		if _, got := received(t, d, bufs); len(got) != 70+i {
			t.Errorf("packet of %d bytes", len(got))
		}
	}
	asked([2]int{1, 70}, [2]int{1, 70}, [2]int{1, 71})
}
