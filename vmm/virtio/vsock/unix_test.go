package vsock_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

// bridged is a guest behind a Bridge.
type bridged struct {
	*guest
	path   string
	bridge *vsock.Bridge
}

func bootBridged(t testing.TB) *bridged {
	t.Helper()
	g := &bridged{guest: boot(t), path: filepath.Join(t.TempDir(), "sock")}
	var err error
	if g.bridge, err = g.dev.Bridge(g.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.bridge.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return g
}

// client connects to the Bridge and writes line.
func (g *bridged) client(line string) *net.UnixConn {
	g.t.Helper()
	c, err := net.Dial("unix", g.path)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, line); err != nil {
		g.t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

// open opens a stream from the host to a port of the guest.
func (g *bridged) open(port uint32) (*sock, *net.UnixConn) {
	g.t.Helper()
	c := g.client(fmt.Sprintf("CONNECT %d\n", port))
	p := g.expect(opRequest)
	if p.dstPort != port {
		g.t.Fatalf("request for port %d", p.dstPort)
	}
	s := &sock{g: g.guest, local: port, host: p.srcPort}
	s.send(opResponse)
	if got, want := readN(g.t, c, len(fmt.Sprintf("OK %d\n", p.srcPort))), fmt.Sprintf("OK %d\n", p.srcPort); got != want {
		g.t.Fatalf("client got %q, want %q", got, want)
	}
	return s, c
}

func readN(t testing.TB, r io.Reader, n int) string {
	t.Helper()
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		t.Fatal(err)
	}
	return string(p)
}

func TestBridgeFromHost(t *testing.T) {
	g := bootBridged(t)
	s, c := g.open(52)
	if _, err := io.WriteString(c, "question"); err != nil {
		t.Fatal(err)
	}
	if p := g.expect(opRW); string(p.data) != "question" {
		t.Errorf("guest got %q", p.data)
	}
	s.write([]byte("answer"))
	if got := readN(t, c, 6); got != "answer" {
		t.Errorf("host got %q", got)
	}
	// What the client sends with the line belongs to the stream.
	c = g.client("connect 53\nearly data")
	p := g.expect(opRequest)
	s = &sock{g: g.guest, local: 53, host: p.srcPort}
	s.send(opResponse)
	if p := g.expect(opRW); string(p.data) != "early data" {
		t.Errorf("guest got %q", p.data)
	}
	_ = c.Close()
}

func TestBridgeBadLines(t *testing.T) {
	g := bootBridged(t)
	for _, line := range []string{
		"\n", "CONNECT\n", "CONNECT \n", "CONNECT x\n", "CONNECT -1\n", "CONNECT +1\n", "CONNECT 1 2\n", "CONNECT 1\r\n",
		"CONNECT 4294967296\n", "GET / HTTP/1.1\r\n", "CONNECT  1\n",
		"CONNECT 00000000000000000000000000000001\n", strings.Repeat("x", vsock.MaxLine),
	} {
		c := g.client(line)
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%q: %d, %v", line, n, err)
		}
	}
	c := g.client("CONNECT 1") // and gone
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); len(got) != 0 || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	g.nothing()
}

func TestBridgeRefusedByGuest(t *testing.T) {
	g := bootBridged(t)
	c := g.client("CONNECT 9\n")
	p := g.expect(opRequest)
	(&sock{g: g.guest, local: 9, host: p.srcPort}).send(opRst)
	if got, err := io.ReadAll(c); len(got) != 0 || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// serve listens where the guest's connections to a port of the host go.
func (g *bridged) serve(port uint32) net.Listener {
	g.t.Helper()
	l, err := net.Listen("unix", fmt.Sprintf("%s_%d", g.path, port))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = l.Close() })
	return l
}

// accept opens a stream from the guest to a listener on the host.
func (g *bridged) accept(l net.Listener, local, port uint32) (*sock, *net.UnixConn) {
	g.t.Helper()
	s := &sock{g: g.guest, local: local, host: port}
	s.send(opRequest)
	g.expect(opResponse)
	c, err := l.Accept()
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = c.Close() })
	return s, c.(*net.UnixConn)
}

func TestBridgeFromGuest(t *testing.T) {
	g := bootBridged(t)
	s, c := g.accept(g.serve(1234), 70, 1234)
	s.write([]byte("to the host"))
	if got := readN(t, c, 11); got != "to the host" {
		t.Errorf("host got %q", got)
	}
	if _, err := io.WriteString(c, "to the guest"); err != nil {
		t.Fatal(err)
	}
	if p := g.expect(opRW); string(p.data) != "to the guest" {
		t.Errorf("guest got %q", p.data)
	}
	// Nobody listens on this one.
	(&sock{g: g.guest, local: 71, host: 1235}).send(opRequest)
	if p := g.expect(opRst); p.dstPort != 71 || p.srcPort != 1235 {
		t.Errorf("reset %+v", p)
	}
	// A port that is listened on in the process is not the Bridge's.
	g.connect(g.listen(1236), 72)
}

// A guest that sends before it was answered loses the stream.
func TestBridgeGuestTooEarly(t *testing.T) {
	dev, err := vsock.New(guestCID)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, dev: dev, alloc: 1 << 18}
	g.d = v.Start(t, dev)
	g.post()
	dialling := make(chan struct{})
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "sock"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := vsock.NewBridge(dev, l, func(ctx context.Context, port uint32) (net.Conn, error) {
		dialling <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &sock{g: g, local: 5, host: 6}
	s.send(opRequest)
	<-dialling
	s.write([]byte("early"))
	g.expect(opRst)
	s.send(opRequest) // once more, to be refused by Close
	<-dialling
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	g.expect(opRst)
	g.nothing()
}

func TestBridgeHalfClose(t *testing.T) {
	g := bootBridged(t)
	l := g.serve(8)
	t.Run("guest first", func(t *testing.T) {
		s, c := g.accept(l, 80, 8)
		s.write([]byte("all of it"))
		s.shutdown(2)
		if got, err := io.ReadAll(c); string(got) != "all of it" || err != nil {
			t.Errorf("host got %q, %v", got, err)
		}
		_, _ = io.WriteString(c, "still heard")
		if p := g.expect(opRW); string(p.data) != "still heard" {
			t.Errorf("guest got %q", p.data)
		}
		_ = c.Close()
		for p := g.expect(opShutdown); p.flags != 3; p = g.expect(opShutdown) {
			if p.flags != 2 {
				t.Errorf("flags %d", p.flags)
			}
		}
		s.send(opRst)
	})
	t.Run("host first", func(t *testing.T) {
		s, c := g.accept(l, 81, 8)
		_ = c.CloseWrite()
		if p := g.expect(opShutdown); p.flags != 2 {
			t.Errorf("flags %d", p.flags)
		}
		s.write([]byte("answer"))
		s.shutdown(3)
		if got, err := io.ReadAll(c); string(got) != "answer" || err != nil {
			t.Errorf("host got %q, %v", got, err)
		}
		for g.receive().op != opRst {
		}
	})
	t.Run("guest vanishes", func(t *testing.T) {
		s, c := g.accept(l, 82, 8)
		s.send(opRst)
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("read %d, %v", n, err)
		}
	})
	t.Run("guest reads no more", func(t *testing.T) {
		s, c := g.accept(l, 83, 8)
		s.shutdown(1)
		for { // until it got through
			if _, err := io.WriteString(c, "unwanted"); err != nil {
				break
			}
		}
		s.write([]byte("last words"))
		if got := readN(t, c, 10); got != "last words" {
			t.Errorf("host got %q", got)
		}
	})
}
