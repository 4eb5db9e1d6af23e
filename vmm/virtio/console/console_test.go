package console_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/console"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

const rx, tx = 0, 1

// gate is an Out that shows each Write and blocks until it is let go on.
type gate struct {
	writes chan string
	open   chan struct{}
}

func newGate() *gate { return &gate{make(chan string, 100), make(chan struct{})} }

func (g *gate) Write(p []byte) (int, error) {
	g.writes <- string(p)
	<-g.open
	return len(p), nil
}

// buffer is an Out that may be looked at.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// print has the guest print s from bufs pieces of one chain.
func print(d *v.Driver, pieces ...string) uint16 {
	var bufs []v.Buf
	for _, s := range pieces {
		bufs = append(bufs, d.Out([]byte(s)))
	}
	head := d.Ring(tx).Add(bufs...)
	d.Kick(tx)
	return head
}

func TestOutput(t *testing.T) {
	var out buffer
	dev := console.New(console.Options{Out: &out})
	d := v.Start(t, dev)
	for _, pieces := range [][]string{{"one "}, {"two ", "pieces "}, {"end"}} {
		head := print(d, pieces...)
		if got, n := d.Ring(tx).Wait(); got != head || n != 0 {
			t.Errorf("used head %d with %d bytes, want %d with none", got, n, head)
		}
	}
	_ = dev.Close() // writes what is buffered
	if out.String() != "one two pieces end" {
		t.Errorf("out got %q", out.String())
	}
}

// A guest that prints more than Out takes keeps its buffers meanwhile, and loses
// nothing.
func TestOutputBackPressure(t *testing.T) {
	out := newGate()
	d := v.Start(t, console.New(console.Options{Out: out}))
	want := "first"
	print(d, "first")
	got := <-out.writes // Out is blocked now
	piece := strings.Repeat("0123456789abcdef", console.BufferSize/16/4)
	for range 6 { // one and a half buffers, and the device has room for one
		print(d, piece)
		want += piece
	}
	used := 0
	for _, _, ok := d.Ring(tx).Next(); ok; _, _, ok = d.Ring(tx).Next() {
		used++
	}
	if used != 1+4 {
		t.Errorf("the device took %d chains, want 5", used)
	}
	close(out.open)
	for range 2 {
		d.Ring(tx).Wait()
	}
	for len(got) < len(want) {
		got += <-out.writes
	}
	if got != want {
		t.Error("the output came out changed")
	}
}

// A flood of output while Out blocks: neither reset nor close waits for Out, and
// the device's goroutines hold no chain of the old driver.
func TestResetAndCloseWhileOutBlocks(t *testing.T) {
	out := newGate()
	defer close(out.open)
	dev := console.New(console.Options{Out: out})
	d := v.Start(t, dev)
	big := d.Alloc(1 << 20)
	for range int(d.Ring(tx).Size) { // 64 MiB
		d.Ring(tx).Add(v.Buf{Addr: big, Len: 1 << 20})
	}
	d.Kick(tx)
	<-out.writes
	d.Init()
	print(d, "after the reset")
	if _, _, ok := d.Ring(tx).Next(); ok {
		t.Error("a full buffer took more")
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
}

func TestOutputError(t *testing.T) {
	r, w := io.Pipe()
	_ = r.Close() // every Write fails
	d := v.Start(t, console.New(console.Options{Out: w}))
	piece := strings.Repeat("x", console.BufferSize)
	for range 8 { // the guest goes on
		print(d, piece)
		d.Ring(tx).Wait()
	}
}

func TestInput(t *testing.T) {
	r, w := io.Pipe()
	d := v.Start(t, console.New(console.Options{In: r}))
	bufs := map[uint16]v.Buf{}
	give := func(n uint32) {
		b := d.In(n)
		bufs[d.Ring(rx).Add(b)] = b
	}
	for range 4 {
		give(8)
	}
	d.Kick(rx)
	const text = "a line that is longer than the guest's buffers\n"
	go func() {
		_, _ = io.WriteString(w, text)
		_ = w.Close()
	}()
	got := ""
	for len(got) < len(text) {
		head, n := d.Ring(rx).Wait()
		b := bufs[head]
		got += string(d.Bytes(v.Buf{Addr: b.Addr, Len: n}))
		give(8)
		d.Kick(rx)
	}
	if got != text {
		t.Errorf("guest read %q", got)
	}
}

// The device reads ahead of the guest by InputSize bytes, not more, and what the
// guest did not take before a reset, it gets afterwards.
func TestInputBackPressure(t *testing.T) {
	r, w := io.Pipe()
	dev := console.New(console.Options{In: r})
	d := v.Start(t, dev)
	long := strings.Repeat("0123456789abcdef", console.InputSize/16)
	wrote := make(chan int, 1)
	go func() {
		n, _ := io.WriteString(w, long+"the rest")
		wrote <- n
	}()
	d.Init()
	select {
	case n := <-wrote:
		t.Fatalf("the device read all %d bytes", n)
	default:
	}
	b := d.In(console.InputSize)
	d.Ring(rx).Add(b)
	d.Kick(rx)
	if _, n := d.Ring(rx).Wait(); n != console.InputSize || string(d.Bytes(b)) != long {
		t.Errorf("guest got %d bytes", n)
	}
	if n := <-wrote; n != len(long)+8 {
		t.Errorf("the device read %d bytes", n)
	}
	_ = dev.Close()
}

func TestSize(t *testing.T) {
	dev := console.New(console.Options{Cols: 80, Rows: 24})
	d := v.Start(t, dev)
	if got := d.Reg(v.RegConfig); got != 80|24<<16 {
		t.Errorf("size %#x", got)
	}
	before := d.Reg(v.RegConfigGeneration)
	dev.Resize(132, 50)
	if got := d.Reg(v.RegConfig); got != 132|50<<16 {
		t.Errorf("size %#x", got)
	}
	if d.Reg(v.RegInterruptStatus)&2 == 0 || d.Reg(v.RegConfigGeneration) == before {
		t.Error("no configuration change notification")
	}
	d.SetReg(v.RegInterruptACK, 2)
	dev.Resize(132, 50)
	if d.Reg(v.RegInterruptStatus)&2 != 0 {
		t.Error("notified of the same size")
	}
	var past [16]byte
	past[15] = 1
	d.Transport.Read(v.RegConfig+8, past[:])
	if past != [16]byte{} {
		t.Errorf("past the configuration space: % x", past)
	}
}

// The emergency write works before the driver is there.
func TestEmergencyWrite(t *testing.T) {
	var out buffer
	dev := console.New(console.Options{Out: &out})
	d := v.Attach(t, dev)
	for _, c := range "panic" {
		d.SetReg(v.RegConfig+8, uint32(c))
	}
	d.SetReg(v.RegConfig+4, 'x') // another field
	_ = dev.Close()
	d.SetReg(v.RegConfig+8, 'y')
	if out.String() != "panic" {
		t.Errorf("out got %q", out.String())
	}
}

// A flood of emergency writes is bounded by the buffer.
func TestEmergencyFlood(t *testing.T) {
	out := newGate()
	dev := console.New(console.Options{Out: out})
	d := v.Attach(t, dev)
	d.SetReg(v.RegConfig+8, '!')
	<-out.writes
	for range 2 * console.BufferSize {
		d.SetReg(v.RegConfig+8, '!')
	}
	close(out.open)
	if n := len(<-out.writes); n != console.BufferSize {
		t.Errorf("%d bytes were kept", n)
	}
}

func TestWrongDirection(t *testing.T) {
	for _, c := range []struct {
		name  string
		queue int
		bufs  func(*v.Driver) []v.Buf
	}{
		{"writable in transmit", tx, func(d *v.Driver) []v.Buf { return []v.Buf{d.Out([]byte("x")), d.In(1)} }},
		{"readable in receive", rx, func(d *v.Driver) []v.Buf { return []v.Buf{d.Out([]byte("x")), d.In(1)} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := console.New(console.Options{In: strings.NewReader("input")})
			d := v.Start(t, dev)
			head := d.Ring(c.queue).Add(c.bufs(d)...)
			d.Kick(c.queue)
			for broken := false; !broken; { // the reader may be the one to find it
				broken, _ = d.Broken()
				if _, _, ok := d.Ring(c.queue).Next(); ok {
					t.Fatalf("chain %d was used", head)
				}
			}
			if _, err := d.Broken(); !errors.Is(err, console.ErrBuffer) {
				t.Errorf("broken: %v", err)
			}
			d.Init()
			print(d, "works again")
			d.Ring(tx).Wait()
		})
	}
}

func FuzzDevice(f *testing.F) {
	f.Add([]byte{0, 3, 'a', 'b', 'c', 0, 0, 0x80, 1, 1, 0, 0, 0, 0x80, 12, 0, 0, 0, 2, 1, 0, 3, 1})
	f.Add([]byte{1, 0, 0, 0, 0, 0x90, 64, 0, 2, 0, 2, 0, 0, 3, 0, 7, 9, 1, 'x', 0, 0, 0, 3})
	v.Fuzz(f, func(testing.TB) virtio.Device {
		return console.New(console.Options{In: strings.NewReader("some input for the guest"), Cols: 80, Rows: 24})
	}, func(tb testing.TB, d *v.Driver) {
		print(d, "still alive")
		d.Ring(tx).Wait()
	})
}

func BenchmarkOutput(b *testing.B) {
	d := v.Start(b, console.New(console.Options{}))
	buf := d.Out(make([]byte, 4096))
	r := d.Ring(tx)
	r.SetAvailFlags(1)
	r.SetDesc(0, v.Desc{Addr: buf.Addr, Len: buf.Len}) // every ring entry is 0
	b.SetBytes(4096)
	b.ReportAllocs()
	for n := uint16(1); b.Loop(); n++ {
		r.SetAvail(n)
		d.Transport.Kick(tx)
		for r.UsedIndex() != n {
		}
	}
}
