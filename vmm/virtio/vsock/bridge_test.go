package vsock_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

// What is at PATH already is not taken away from anybody.
func TestBridgePath(t *testing.T) {
	dev, err := vsock.New(guestCID)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	dir := t.TempDir()
	path := filepath.Join(dir, "sock")
	live, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	live.SetUnlinkOnClose(false)
	if _, err := dev.Bridge(path); err == nil {
		t.Error("replaced a socket that somebody listens on")
	}
	_ = live.Close() // it stays, and is stale
	b, err := dev.Bridge(path)
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	other := filepath.Join(dir, "other")
	if _, err := dev.Bridge(other); err == nil {
		t.Error("a second Bridge")
	}
	for _, p := range []string{path, other} {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", p, err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dev.Bridge(file); err == nil {
		t.Error("took a plain file's place")
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

// hasty is a connection on which every deadline has passed.
type hasty struct {
	net.Conn
	asked chan time.Duration
}

func (h hasty) SetDeadline(t time.Time) error {
	if !t.IsZero() {
		h.asked <- time.Until(t)
		t = time.Now()
	}
	return h.Conn.SetDeadline(t)
}

// one is a listener that has one connection.
type one struct {
	conn chan net.Conn
	done chan struct{}
}

func (o one) Accept() (net.Conn, error) {
	select {
	case c := <-o.conn:
		return c, nil
	case <-o.done:
		return nil, net.ErrClosed
	}
}
func (o one) Close() error   { close(o.done); return nil }
func (o one) Addr() net.Addr { return vsock.Addr{} }

// A client that says nothing is not waited for without end.
func TestBridgeSilentClient(t *testing.T) {
	dev, err := vsock.New(guestCID)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	l := one{make(chan net.Conn, 1), make(chan struct{})}
	b, err := vsock.NewBridge(dev, l, nil)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	asked := make(chan time.Duration, 1)
	l.conn <- hasty{far, asked}
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read: %v", err)
	}
	if d := <-asked; d <= 0 || d > vsock.LineTimeout {
		t.Errorf("deadline in %v", d)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// A guest that floods the host with connections gets MaxConns of them and RST
// for the rest, and nothing stays when the Bridge is closed.
func TestBridgeFlood(t *testing.T) {
	before := runtime.NumGoroutine()
	g := bootBridged(t)
	l := g.serve(7)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	const asked = vsock.MaxConns + 100
	answers := map[uint16]int{}
	for i := range uint32(asked) {
		(&sock{g: g.guest, local: i, host: 7}).send(opRequest)
		answers[g.receive().op]++
	}
	if answers[opResponse] != vsock.MaxConns || answers[opRst] != 100 {
		t.Errorf("answers %v", answers)
	}
	c, err := net.Dial("unix", g.path) // no slot is left
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d, %v", n, err)
	}
	if err := g.bridge.Close(); err != nil {
		t.Error(err)
	}
	_ = l.Close()
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines before, %d now", before, runtime.NumGoroutine())
		}
		runtime.Gosched()
	}
}

// A guest that reads nothing blocks its stream only, and Close ends that.
func TestBridgeCloseWhileBlocked(t *testing.T) {
	g := bootBridged(t)
	g.alloc = 4
	_, c := g.open(1)
	if _, err := io.WriteString(c, "more than four bytes"); err != nil {
		t.Fatal(err)
	}
	g.expect(opRW)
	_, other := g.open(2)
	_, _ = io.WriteString(other, "fine")
	if p := g.expect(opRW); string(p.data) != "fine" {
		t.Errorf("guest got %q", p.data)
	}
	if err := g.bridge.Close(); err != nil {
		t.Error(err)
	}
	if _, err := bufio.NewReader(c).ReadByte(); err == nil {
		t.Error("the client is still connected")
	}
}

// Many clients at once, each with its own data: a guest that echoes gives every
// one of them its own back.
func TestBridgeManyStreams(t *testing.T) {
	const clients, size = 48, 100_000
	g := bootBridged(t)
	var wg sync.WaitGroup
	for i := range clients {
		c := g.client(fmt.Sprintf("CONNECT %d\n", i))
		wg.Go(func() {
			if err := echo(c, i, size); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	socks := map[uint32]*sock{}
	for ended := 0; ended < clients; {
		p := g.receive()
		s := socks[p.srcPort]
		switch p.op {
		case opRequest:
			s = &sock{g: g.guest, local: p.dstPort, host: p.srcPort}
			socks[p.srcPort] = s
			s.send(opResponse)
		case opRW:
			s.fwd += uint32(len(p.data))
			s.write(p.data)
		case opShutdown:
			s.shutdown(3)
		case opRst:
			ended++
		}
	}
	wg.Wait()
}

// echo sends data through a Bridge's client and wants it back.
func echo(c *net.UnixConn, seed, size int) error {
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil {
		return fmt.Errorf("answer %q: %w", line, err)
	}
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(data)
	go func() {
		_, _ = c.Write(data)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(got, data) {
		err = fmt.Errorf("%d bytes came back, or others", len(got))
	}
	return err
}
