package microvm

import (
	"bufio"
	"io"
	"net"
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
