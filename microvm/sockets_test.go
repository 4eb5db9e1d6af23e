package microvm

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A monitor gets the sockets of ports that somebody listens on, and no other.
func TestDialThroughParent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vsock")
	l, err := net.Listen("unix", path+"_6000")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	parent := os.NewFile(uintptr(fds[0]), "parent")
	go answerDials(parent, path)
	a, err := newAsker(os.NewFile(uintptr(fds[1]), "monitor"))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c, err := a.dial(t.Context(), 6000)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "from the guest"); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		host, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(host); err != nil || string(text) != "from the guest" {
			t.Errorf("%q, %v", text, err)
		}
		if err := errors.Join(host.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	}
	if _, err := a.dial(t.Context(), 6001); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a port that nobody listens on: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := a.dial(ctx, 6001); err == nil {
		t.Errorf("a context that has ended: %v", c)
	}
}
