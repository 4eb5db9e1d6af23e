package console_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/duplex-run/duplex/vmm/virtio/console"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// sleep waits for an interrupt that the driver asked for.
func sleep(t *testing.T, d *v.Driver) {
	t.Helper()
	select {
	case <-d.Interrupts():
		d.Acknowledge()
	case <-time.After(10 * time.Second):
		t.Fatal("a notification was lost")
	}
}

// A guest that notifies only when the device asks for it, and sleeps until an
// interrupt that it asked for, as Linux does, prints 4 MB without a hitch.
func TestNoNotificationIsLostPrinting(t *testing.T) {
	r, w := io.Pipe()
	d := v.Start(t, console.New(console.Options{Out: w}))
	data := make([]byte, 4_000_000)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(data)
	got := make(chan []byte)
	go func() {
		p := make([]byte, len(data))
		_, _ = io.ReadFull(r, p)
		got <- p
	}()
	ring := d.Ring(tx)
	var spare []v.Buf
	for range 8 {
		spare = append(spare, v.Buf{Addr: d.Alloc(8 << 10)})
	}
	flight := map[uint16]v.Buf{}
	for sent := 0; sent < len(data) || len(flight) > 0; {
		for head, _, ok := ring.Next(); ok; head, _, ok = ring.Next() {
			spare = append(spare, flight[head])
			delete(flight, head)
		}
		for len(spare) > 0 && sent < len(data) {
			b := spare[len(spare)-1]
			spare = spare[:len(spare)-1]
			b.Len = uint32(min(len(data)-sent, 1+int(random.Uint64()%8192)))
			d.Put(b.Addr, data[sent:sent+int(b.Len)])
			sent += int(b.Len)
			flight[ring.Add(b)] = b
		}
		if ring.NeedsKick() {
			d.Transport.Kick(tx)
		}
		if len(flight) > 0 && ring.EnableInterrupt() {
			sleep(t, d)
		}
	}
	if !bytes.Equal(<-got, data) {
		t.Error("the output came out changed")
	}
}

// The same for input.
func TestNoNotificationIsLostReading(t *testing.T) {
	data := make([]byte, 1_000_000)
	random := rand.NewChaCha8([32]byte{2})
	_, _ = random.Read(data)
	d := v.Start(t, console.New(console.Options{In: bytes.NewReader(data)}))
	ring := d.Ring(rx)
	bufs := map[uint16]v.Buf{}
	for i := range 8 {
		b := v.Buf{Addr: d.Alloc(8 << 10), Len: uint32(1 + 700*i), Write: true}
		bufs[ring.Add(b)] = b
	}
	var got []byte
	for len(got) < len(data) {
		for head, n, ok := ring.Next(); ok; head, n, ok = ring.Next() {
			b := bufs[head]
			delete(bufs, head)
			got = append(got, d.Bytes(v.Buf{Addr: b.Addr, Len: n})...)
			bufs[ring.Add(b)] = b
		}
		if ring.NeedsKick() {
			d.Transport.Kick(rx)
		}
		if len(got) < len(data) && ring.EnableInterrupt() {
			sleep(t, d)
		}
	}
	if !bytes.Equal(got, data) {
		t.Error("the input came out changed")
	}
}
