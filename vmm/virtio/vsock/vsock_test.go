package vsock_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

func TestNewRefusesReservedCIDs(t *testing.T) {
	for _, cid := range []uint64{0, 1, 2, 1<<32 - 1, 1 << 32, 1<<64 - 1} {
		if _, err := vsock.New(cid); err == nil {
			t.Errorf("CID %d was taken", cid)
		}
	}
}

func TestStream(t *testing.T) {
	g := boot(t)
	if got := g.d.Reg(v.RegConfig); got != guestCID {
		t.Fatalf("CID in the configuration space is %d", got)
	}
	s, c := g.connect(g.listen(1024), 700)
	if c.RemoteAddr().String() != "3:700" || c.LocalAddr().String() != "2:1024" {
		t.Errorf("addresses %v, %v", c.RemoteAddr(), c.LocalAddr())
	}
	s.write([]byte("from the guest"))
	p := make([]byte, 100)
	if n, err := c.Read(p); err != nil || string(p[:n]) != "from the guest" {
		t.Errorf("read %q, %v", p[:n], err)
	}
	if n, err := c.Write([]byte("from the host")); n != 13 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if got := g.expect(opRW); string(got.data) != "from the host" || got.fwd != 14 {
		t.Errorf("guest got %q, fwd_cnt %d", got.data, got.fwd)
	}
}

// Each side can end its sending alone, and the other direction goes on.
func TestHalfClose(t *testing.T) {
	g := boot(t)
	l := g.listen(1)
	t.Run("guest first", func(t *testing.T) {
		s, c := g.connect(l, 10)
		s.write([]byte("last"))
		s.shutdown(2)
		if got, err := io.ReadAll(c); string(got) != "last" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		if _, err := c.Write([]byte("answer")); err != nil {
			t.Error(err)
		}
		g.expect(opRW)
		s.shutdown(3)
		g.expect(opRst)
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to a closed stream: %v", err)
		}
	})
	t.Run("host first", func(t *testing.T) {
		s, c := g.connect(l, 11)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if p := g.expect(opShutdown); p.flags != 2 {
			t.Errorf("flags %d", p.flags)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after CloseWrite: %v", err)
		}
		s.write([]byte("still here"))
		p := make([]byte, 100)
		if n, err := c.Read(p); string(p[:n]) != "still here" || err != nil {
			t.Errorf("read %q, %v", p[:n], err)
		}
		_ = c.Close()
		if p := g.expect(opShutdown); p.flags != 3 {
			t.Errorf("flags %d", p.flags)
		}
		s.send(opRst)
		_ = c.Close()
		g.nothing()
	})
	t.Run("nobody reads", func(t *testing.T) {
		s, c := g.connect(l, 12)
		s.write([]byte("unread"))
		_ = c.CloseRead()
		if p := g.expect(opShutdown); p.flags != 1 || p.fwd != 6 {
			t.Errorf("flags %d, fwd_cnt %d", p.flags, p.fwd)
		}
		s.write([]byte("too late")) // crossed the shutdown on the way
		g.nothing()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after CloseRead: %v", err)
		}
		if _, err := c.Write([]byte("y")); err != nil {
			t.Error(err)
		}
		g.expect(opRW)
	})
	t.Run("guest reads no more", func(t *testing.T) {
		s, c := g.connect(l, 13)
		s.shutdown(1)
		if n, err := c.Write([]byte("x")); n != 0 || !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write: %d, %v", n, err)
		}
	})
}

// A writer stops at the guest's credit and goes on when there is more.
func TestCreditOfTheGuest(t *testing.T) {
	g := boot(t)
	g.alloc = 10
	s, c := g.connect(g.listen(5), 1)
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte("0123456789abcdef"))
		wrote <- err
	}()
	if p := g.expect(opRW); string(p.data) != "0123456789" {
		t.Fatalf("guest got %q", p.data)
	}
	s.send(opCreditUpdate) // no news
	select {
	case err := <-wrote:
		t.Fatalf("write returned early: %v", err)
	default:
	}
	g.nothing()
	s.fwd = 4
	s.send(opCreditUpdate)
	if p := g.expect(opRW); string(p.data) != "abcd" {
		t.Fatalf("guest got %q", p.data)
	}
	s.fwd = 1 << 31 // nonsense: more than was sent
	s.send(opCreditUpdate)
	g.nothing()
	s.fwd = 14
	s.send(opCreditUpdate)
	g.expect(opRW)
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// The guest is told of room when half of the buffer was read, and on request.
func TestCreditOfTheHost(t *testing.T) {
	g := boot(t)
	s, c := g.connect(g.listen(5), 1)
	s.send(opCreditRequest)
	if p := g.expect(opCreditUpdate); p.fwd != 0 || p.alloc != vsock.BufferSize {
		t.Errorf("credit %+v", p)
	}
	chunk := make([]byte, vsock.BufferSize/8)
	for range 8 {
		s.write(chunk)
	}
	if _, err := io.ReadFull(c, make([]byte, vsock.BufferSize/2-1)); err != nil {
		t.Fatal(err)
	}
	g.nothing()
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if p := g.expect(opCreditUpdate); p.fwd != vsock.BufferSize/2 {
		t.Errorf("fwd_cnt %d", p.fwd)
	}
}

func TestManyStreams(t *testing.T) {
	g := boot(t)
	l := g.listen(5)
	conns := map[uint32]*vsock.Conn{}
	socks := map[uint32]*sock{}
	for i := range uint32(vsock.MaxConns) {
		socks[i], conns[i] = g.connect(l, i)
	}
	(&sock{g: g, local: 5000, host: 5}).send(opRequest)
	g.expect(opRst)
	for i, s := range socks {
		s.write([]byte{byte(i), byte(i >> 8)})
	}
	for i, c := range conns {
		p := make([]byte, 10)
		if n, err := c.Read(p); n != 2 || err != nil || uint32(p[0])|uint32(p[1])<<8 != i {
			t.Fatalf("stream %d read % x, %v", i, p[:n], err)
		}
	}
	socks[7].shutdown(3)
	g.expect(opRst)
	g.connect(l, 5000) // there is room for one again
}

func TestBacklog(t *testing.T) {
	g := boot(t)
	l := g.listen(5)
	for i := range uint32(vsock.Backlog) {
		(&sock{g: g, local: i, host: 5}).send(opRequest)
		g.expect(opResponse)
	}
	(&sock{g: g, local: 9999, host: 5}).send(opRequest)
	g.expect(opRst)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range vsock.Backlog {
		if p := g.expect(opShutdown); p.flags != 3 {
			t.Fatalf("flags %d", p.flags)
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	g.listen(5) // the port is free again
	if _, err := g.dev.Listen(5); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second listen: %v", err)
	}
}

func TestDeadlines(t *testing.T) {
	g := boot(t)
	g.alloc = 4
	_, c := g.connect(g.listen(5), 1)
	_ = c.SetDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if n, err := c.Write(make([]byte, 10)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write past the deadline: %d, %v", n, err)
	}
	_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := c.Write(make([]byte, 10)); n != 4 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %d, %v", n, err)
	}
	_ = c.SetDeadline(time.Time{})
	done := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		done <- err
	}()
	_ = c.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read while closing: %v", err)
	}
}

// Whoever waits is woken when the device goes, by reset or for good.
func TestWaitersAreWoken(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*guest)
		want error
	}{
		{"reset", func(g *guest) { g.d.SetReg(v.RegStatus, 0) }, syscall.ECONNRESET},
		{"close", func(g *guest) { _ = g.dev.Close() }, net.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := boot(t)
			g.alloc = 1
			_, conn := g.connect(g.listen(5), 1)
			errs := make(chan error, 2)
			go func() { _, err := conn.Read(make([]byte, 1)); errs <- err }()
			go func() { _, err := conn.Write(make([]byte, 2)); errs <- err }()
			g.expect(opRW)
			c.end(g)
			for range 2 {
				if err := <-errs; !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
			}
		})
	}
}

// 10 MB in each direction at once, byte for byte, through an echo on the host.
func TestEcho(t *testing.T) {
	const size = 10_000_000
	g := boot(t)
	s, c := g.connect(g.listen(5), 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := io.Copy(c, c); err != nil {
			t.Errorf("echo: %v", err)
		}
		_ = c.CloseWrite()
	})
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(data)
	var got []byte
	sent, hostFwd := 0, uint32(0)
	for len(got) < size {
		for sent < size && sent-int(hostFwd) < vsock.BufferSize-32<<10 {
			n := min(32<<10, size-sent)
			s.write(data[sent : sent+n])
			sent += n
		}
		if sent == size {
			s.shutdown(2)
			sent++ // once
		}
		p := g.receive()
		hostFwd = p.fwd
		if p.op == opRW {
			got = append(got, p.data...)
			s.fwd = uint32(len(got))
			if len(got)%(64<<10) < len(p.data) {
				s.send(opCreditUpdate)
			}
		}
	}
	if !bytes.Equal(got, data) {
		t.Error("the data came back changed")
	}
	g.expect(opShutdown)
	s.shutdown(3)
	wg.Wait()
}
