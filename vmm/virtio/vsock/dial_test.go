package vsock_test

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

// dialed is what a Dial came to.
type dialed struct {
	c   *vsock.Conn
	err error
}

// dial calls Dial and returns the guest's end of the stream that it asks for.
func (g *guest) dial(ctx context.Context, port uint32) (*sock, <-chan dialed) {
	g.t.Helper()
	done := make(chan dialed, 1)
	go func() {
		c, err := g.dev.Dial(ctx, port)
		done <- dialed{c, err}
	}()
	p := g.expect(opRequest)
	if p.dstPort != port || p.alloc != vsock.BufferSize {
		g.t.Fatalf("request: %+v", p)
	}
	return &sock{g: g, local: port, host: p.srcPort}, done
}

// dialAccepted opens a stream from the host and returns both ends.
func (g *guest) dialAccepted(port uint32) (*sock, *vsock.Conn) {
	g.t.Helper()
	s, done := g.dial(context.Background(), port)
	s.send(opResponse)
	r := <-done
	if r.err != nil {
		g.t.Fatal(r.err)
	}
	return s, r.c
}

func TestDial(t *testing.T) {
	g := boot(t)
	s, c := g.dialAccepted(22)
	if got := c.RemoteAddr().(vsock.Addr); got != (vsock.Addr{CID: guestCID, Port: 22}) {
		t.Errorf("remote address %v", got)
	}
	s.write([]byte("220 hello"))
	p := make([]byte, 100)
	if n, err := c.Read(p); string(p[:n]) != "220 hello" || err != nil {
		t.Errorf("read %q, %v", p[:n], err)
	}
	if _, err := c.Write([]byte("EHLO")); err != nil {
		t.Error(err)
	}
	if p := g.expect(opRW); string(p.data) != "EHLO" || p.dstPort != 22 || p.srcPort != s.host {
		t.Errorf("guest got %+v", p)
	}
	s.shutdown(2)
	if n, err := c.Read(p); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read after the guest's shutdown: %d, %v", n, err)
	}
	other, _ := g.dialAccepted(22)
	if other.host == s.host {
		t.Error("two streams to a port share the host's port")
	}
}

// Every reason why Dial fails is told apart from the others.
func TestDialErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*guest, *sock, context.CancelFunc)
		want error
	}{
		{"refused", func(_ *guest, s *sock, _ context.CancelFunc) { s.send(opRst) }, syscall.ECONNREFUSED},
		{"data first", func(g *guest, s *sock, _ context.CancelFunc) {
			s.write([]byte("early"))
			g.expect(opRst)
		}, syscall.ECONNRESET},
		{"request back", func(g *guest, s *sock, _ context.CancelFunc) {
			s.send(opRequest)
			g.expect(opRst)
		}, syscall.ECONNRESET},
		{"cancelled", func(g *guest, s *sock, cancel context.CancelFunc) {
			cancel()
			if p := g.expect(opRst); p.srcPort != s.host || p.dstPort != s.local {
				g.t.Errorf("reset: %+v", p)
			}
			s.send(opResponse) // too late
			g.expect(opRst)
		}, context.Canceled},
		{"driver reset", func(g *guest, _ *sock, _ context.CancelFunc) { g.d.SetReg(v.RegStatus, 0) }, syscall.ECONNRESET},
		{"closed", func(g *guest, _ *sock, _ context.CancelFunc) { _ = g.dev.Close() }, net.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := boot(t)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			s, done := g.dial(ctx, 7)
			c.do(g, s, cancel)
			if r := <-done; r.c != nil || !errors.Is(r.err, c.want) {
				t.Errorf("got %v, want %v", r.err, c.want)
			}
		})
	}
	t.Run("no driver", func(t *testing.T) {
		dev, err := vsock.New(guestCID)
		if err != nil {
			t.Fatal(err)
		}
		v.Attach(t, dev)
		if _, err := dev.Dial(context.Background(), 1); !errors.Is(err, syscall.ENETDOWN) {
			t.Errorf("got %v", err)
		}
	})
}

// A guest that answers nothing holds no more than MaxConns streams, and what
// the host closed makes room for new ones.
func TestDialFull(t *testing.T) {
	g := boot(t)
	var conns []*vsock.Conn
	for range vsock.MaxConns {
		_, c := g.dialAccepted(9)
		conns = append(conns, c)
	}
	if _, err := g.dev.Dial(context.Background(), 9); !errors.Is(err, syscall.ENOBUFS) {
		t.Fatalf("one stream more: %v", err)
	}
	for _, c := range conns[:2] {
		_ = c.Close()
		g.expect(opShutdown)
	}
	done := make(chan dialed, 1)
	go func() {
		c, err := g.dev.Dial(context.Background(), 9)
		done <- dialed{c, err}
	}()
	if p := g.expect(opRst); p.srcPort != conns[0].LocalAddr().(vsock.Addr).Port {
		t.Errorf("reset %+v, want the stream closed first", p)
	}
	p := g.expect(opRequest)
	(&sock{g: g, local: 9, host: p.srcPort}).send(opResponse)
	if r := <-done; r.err != nil {
		t.Error(r.err)
	}
}

// A guest that takes no packets makes Dial time out, and hears nothing of it
// when it takes some.
func TestDialTimesOut(t *testing.T) {
	dev, err := vsock.New(guestCID)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, dev: dev, alloc: 1 << 18}
	g.d = v.Start(t, dev)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := dev.Dial(ctx, 5); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	g.post()
	g.nothing()
	g.dialAccepted(5)
	if _, err := dev.Dial(ctx, 5); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	g.nothing()
}
