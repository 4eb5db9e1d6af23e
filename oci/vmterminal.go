package oci

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/duplex-run/duplex/container/handshake"
	pty "github.com/duplex-run/duplex/container/terminal"
	"github.com/duplex-run/duplex/internal/workload"
)

// terminal is a pseudo-terminal of the host, whose master an engine has. It only
// passes bytes on: the guest's own terminal does what terminals do.
type terminal struct {
	master, slave *os.File
	sizes         chan workload.WinSize
}

// newTerminal makes one, the controlling terminal of this process, so that the
// kernel tells of a new size.
func newTerminal(first *specs.Box) (*terminal, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	fd, err := pty.Peer(int(master.Fd()))
	if err != nil {
		return nil, err
	}
	t := &terminal{master: master, slave: os.NewFile(uintptr(fd), "terminal"), sizes: make(chan workload.WinSize, 1)}
	if _, err := term.MakeRaw(fd); err != nil {
		return nil, err
	}
	if first != nil {
		if err := pty.SetSize(fd, workload.WinSize{Rows: uint16(first.Height), Cols: uint16(first.Width)}); err != nil {
			return nil, err
		}
	}
	if err := unix.IoctlSetInt(fd, unix.TIOCSCTTY, 0); err != nil {
		return nil, err
	}
	winch := make(chan os.Signal, 1)
	signal.Notify(winch, syscall.SIGWINCH)
	go func() {
		for range winch {
			t.sizes <- t.size()
		}
	}()
	return t, nil
}

// lateReader reads once there is who reads: what is typed before would be echoed
// by the guest's outer terminal as well.
type lateReader struct {
	from *os.File
	open <-chan struct{}
}

func (r *lateReader) Read(p []byte) (int, error) {
	<-r.open
	return r.from.Read(p)
}

// pass sends the master to the creator.
func (t *terminal) pass(to handshake.Conn) error {
	defer func() { _ = t.master.Close() }()
	return to.SendFile(handshake.Message{Kind: handshake.KindTerminal}, int(t.master.Fd()))
}

func (t *terminal) size() workload.WinSize {
	ws, err := unix.IoctlGetWinsize(int(t.slave.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return workload.WinSize{}
	}
	return workload.WinSize{Rows: ws.Row, Cols: ws.Col}
}

func (t *terminal) close() { _ = t.slave.Close() }
