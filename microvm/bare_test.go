package microvm

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/duplex-run/duplex/vmm"
)

// The virtio console carries bytes both ways.
func TestGuestBootConsole(t *testing.T) {
	in, say := io.Pipe()
	hear, out := io.Pipe()
	defer func() { _ = say.Close(); _ = hear.Close() }()
	g := startBare(t, "console", func(h *Hardware, o *BootOptions) {
		h.Console, o.Console, o.ConsoleInput = true, out, in
	})
	g.await("bare: ready")
	lines := bufio.NewScanner(hear)
	for _, line := range []string{"hello", "quit"} {
		if _, err := io.WriteString(say, line+"\n"); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || lines.Text() != "you said "+line {
			t.Fatalf("heard %q, %v", lines.Text(), lines.Err())
		}
	}
	g.finish("console")
}

// Memory that the guest frees returns to the host (free page reporting).
func TestGuestBootBalloon(t *testing.T) {
	stats := make(chan vmm.Stats, 1)
	g := startBare(t, "balloon", func(h *Hardware, o *BootOptions) {
		h.Balloon, o.StatsEvery = true, time.Second
		o.OnStats = func(s vmm.Stats) {
			select {
			case <-stats:
			default:
			}
			stats <- s
		}
	})
	g.await("bare: used")
	<-stats // may be older
	used := (<-stats).Resident
	g.say("freed")
	g.await("bare: freed")
	now := used
	for now+64<<20 > used { // the kernel reports blocks of 2 MiB
		select {
		case s := <-stats:
			now = s.Resident
		case <-g.done:
			t.Fatalf("%d MiB resident, %d before, and the guest ended: %v", now>>20, used>>20, g.err)
		}
	}
	t.Logf("%d MiB resident, %d once 96 were freed", used>>20, now>>20)
	g.say("enough")
	g.finish("balloon")
}

// A TAP interface of the host is the guest's eth0.
func TestGuestBootTAP(t *testing.T) {
	guestOnly(t)
	const host, guest = "10.99.0.1/24", "10.99.0.2/24"
	makeTAP(t, "tapd0", host)
	peer := echoServer(t, "10.99.0.1:0")
	g := startBare(t, "net address="+guest+" peer="+peer, func(h *Hardware, _ *BootOptions) {
		h.Networks = []Network{{Tap: "tapd0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}}}
	})
	g.finish("net")
}

// echoServer gives back what it is sent, by TCP and UDP on one port.
func echoServer(t *testing.T, addr string) string {
	t.Helper()
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	u, err := net.ListenPacket("udp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(buf[:n], from)
		}
	}()
	return l.Addr().String()
}

// The user-mode network reaches the host without any right, and its published
// ports lead to the guest.
func TestGuestBootUserNetwork(t *testing.T) {
	guestOnly(t)
	makeTAP(t, "dummy0", "10.98.0.1/24") // the stack does not lead to loopback
	peer := echoServer(t, "10.98.0.1:0")
	g := startBare(t, "net address=10.0.2.15/24 gateway=10.0.2.2 peer="+peer, func(h *Hardware, _ *BootOptions) {
		h.Networks = []Network{{}}
	})
	g.finish("net")
}

// The guest's sockets are Unix sockets of the host, both ways, half-closed each.
func TestGuestBootVsock(t *testing.T) {
	guestOnly(t)
	path := filepath.Join(t.TempDir(), "vsock")
	l, err := net.Listen("unix", path+"_6000")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	g := startBare(t, "vsock", func(h *Hardware, _ *BootOptions) { h.Vsock = path })
	g.await("bare: ready")
	c := dialUnix(t, path)
	if _, err := io.WriteString(c, "CONNECT 5000\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "OK ") {
		t.Fatalf("answer %q, %v", line, err)
	}
	sent := bytes.Repeat([]byte("to the guest and back "), 1<<16)
	go func() {
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(in); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes came back: %v", len(got), len(sent), err)
	}
	from, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	if text, err := io.ReadAll(from); err != nil || string(text) != "from the guest" {
		t.Fatalf("%q, %v", text, err)
	}
	if _, err := io.WriteString(from, "from the host"); err != nil {
		t.Fatal(err)
	}
	_ = from.Close()
	g.finish("vsock")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func dialUnix(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Shared directories show what the host has, take what the guest writes where
// they may, and lead nowhere else.
func TestGuestBootShare(t *testing.T) {
	guestOnly(t)
	rw, ro, outside := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "secret")
	for path, text := range map[string]string{rw + "/hello": "from the host", ro + "/hello": "from the host", outside: "secret"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, rw+"/outside"); err != nil {
		t.Fatal(err)
	}
	g := startBare(t, "fs", func(h *Hardware, _ *BootOptions) {
		h.Shares = []Share{{Dir: rw, Tag: "rw"}, {Dir: ro, Tag: "ro", ReadOnly: true}}
	})
	g.finish("fs")
	if text, err := os.ReadFile(rw + "/renamed"); err != nil || string(text) != "from the guest" {
		t.Errorf("%q, %v", text, err)
	}
	if names, err := os.ReadDir(ro); err != nil || len(names) != 1 {
		t.Errorf("the read-only directory holds %v, %v", names, err)
	}
}
