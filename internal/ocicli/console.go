package ocicli

import (
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// ociConsole connects the caller's terminal with a container's, when there is
// no console socket. The zero value of what it holds is idle.
type ociConsole struct {
	in     *os.File
	out    io.Writer
	old    *term.State
	winch  chan os.Signal
	master *os.File
	copied chan struct{}
}

// newOCIConsole prepares for a terminal that may come; see attach.
func newOCIConsole(o *ociApp) *ociConsole { return &ociConsole{in: o.in, out: o.out} }

// attach takes the master and starts to copy; the caller's terminal, if its
// input is one, goes to raw mode.
func (c *ociConsole) attach(master *os.File) {
	c.master = master
	if fd := int(c.in.Fd()); term.IsTerminal(fd) {
		if old, err := term.MakeRaw(fd); err == nil {
			c.old = old
		}
		c.winch = make(chan os.Signal, 1)
		signal.Notify(c.winch, syscall.SIGWINCH)
		go func() {
			for range c.winch {
				c.resize()
			}
		}()
		c.resize()
	}
	c.copied = make(chan struct{})
	go func() {
		defer close(c.copied)
		_, _ = io.Copy(c.out, master) // EIO: the last writer is gone
	}()
	go func() { _, _ = io.Copy(master, c.in) }() // until the input or the terminal ends
}

func (c *ociConsole) resize() {
	ws, err := unix.IoctlGetWinsize(int(c.in.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return
	}
	if raw, err := c.master.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, ws) })
	}
}

// close waits for the rest of the output and gives the terminal back. The
// container has ended.
func (c *ociConsole) close() {
	if c.winch != nil {
		signal.Stop(c.winch)
		close(c.winch)
	}
	if c.copied != nil {
		<-c.copied
		_ = c.master.Close()
	}
	if c.old != nil {
		_ = term.Restore(int(c.in.Fd()), c.old)
	}
}
