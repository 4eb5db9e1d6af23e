package vsock_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// sparing is a guest that, like Linux, notifies only when the device asks for it
// and sleeps until an interrupt that it asked for: a notification that the
// device forgets to ask for, or to send, stops it for good.
type sparing struct {
	*guest
	kicks  [2]chan struct{} // as ioeventfds: served on other goroutines
	spare  []v.Buf          // transmit buffers not in use
	flight map[uint16]v.Buf
}

func startSparing(t *testing.T) *sparing {
	g := &sparing{guest: boot(t), flight: map[uint16]v.Buf{}}
	var serving sync.WaitGroup
	for q := range g.kicks {
		g.kicks[q] = make(chan struct{}, 1)
		serving.Go(func() {
			for range g.kicks[q] {
				g.d.Transport.Kick(q)
			}
		})
	}
	t.Cleanup(func() {
		for _, k := range g.kicks {
			close(k)
		}
		serving.Wait()
	})
	for range 16 {
		g.spare = append(g.spare, v.Buf{Addr: g.d.Alloc(8 << 10)})
	}
	return g
}

func (g *sparing) kickIfWanted(q int) {
	if g.d.Ring(q).NeedsKick() {
		select {
		case g.kicks[q] <- struct{}{}:
		default: // one is pending, as in an eventfd
		}
	}
}

// put makes a packet available to the device; there must be a spare buffer.
func (g *sparing) put(raw []byte) {
	b := g.spare[len(g.spare)-1]
	g.spare = g.spare[:len(g.spare)-1]
	b.Len = uint32(len(raw))
	g.d.Put(b.Addr, raw)
	g.flight[g.d.Ring(1).Add(b)] = b
}

// reap takes back what the device has sent.
func (g *sparing) reap() (progress bool) {
	for head, _, ok := g.d.Ring(1).Next(); ok; head, _, ok = g.d.Ring(1).Next() {
		g.spare = append(g.spare, g.flight[head])
		delete(g.flight, head)
		progress = true
	}
	return progress
}

// sleep waits for an interrupt, unless there is something to do already.
func (g *sparing) sleep() {
	g.t.Helper()
	tx, rx := g.d.Ring(1).EnableInterrupt(), g.d.Ring(0).EnableInterrupt()
	if !tx || !rx {
		return
	}
	select {
	case <-g.d.Interrupts():
		g.d.Acknowledge()
	case <-time.After(10 * time.Second):
		g.t.Fatalf("a notification was lost: %d packets in flight", len(g.flight))
	}
}

func TestNoNotificationIsLost(t *testing.T) {
	const size = 3_000_000
	g := startSparing(t)
	s, c := g.connect(g.listen(5), 1)
	var echo sync.WaitGroup
	echo.Go(func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 5000))
		_ = c.CloseWrite()
	})
	data := make([]byte, size)
	random := rand.NewChaCha8([32]byte{9})
	_, _ = random.Read(data)
	var got []byte
	sent, hostFwd, told := 0, 0, 0
	for done := false; !done; {
		progress := g.reap()
		for head, n, ok := g.d.Ring(0).Next(); ok; head, n, ok = g.d.Ring(0).Next() {
			progress = true
			buf := g.rx[head]
			p := decode(g.d.Bytes(v.Buf{Addr: buf.Addr, Len: n}))
			hostFwd = int(p.fwd)
			got = append(got, p.data...)
			done = done || p.op == opShutdown
			g.give(buf)
		}
		s.fwd = uint32(len(got))
		if len(got)-told >= int(g.alloc)/2 && len(g.spare) > 0 {
			told = len(got)
			g.put(s.packet(opCreditUpdate).encode())
		}
		for len(g.spare) > 1 && sent < size && sent-hostFwd < 200_000 {
			p := s.packet(opRW)
			p.data = data[sent:min(size, sent+1+int(random.Uint64()%8000))]
			p.len = uint32(len(p.data))
			g.put(p.encode())
			sent += len(p.data)
			if sent == size {
				p := s.packet(opShutdown)
				p.flags = 2
				g.put(p.encode())
			}
		}
		g.kickIfWanted(0)
		g.kickIfWanted(1)
		if !progress {
			g.sleep()
		}
	}
	echo.Wait()
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back for %d, or others", len(got), size)
	}
}
