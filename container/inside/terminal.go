package inside

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/terminal"
	"github.com/duplex-run/duplex/internal/workload"
)

// openTerminal makes a pseudo-terminal in the container's devpts, the
// controlling terminal and standard streams of this process, and sends the
// master's descriptor to duplex. Without a TTY it does nothing.
//
// With console the slave is bound to /dev/console too.
//
// The slave is opened through the master (TIOCGPTPEER), never by name: a name
// could lead elsewhere.
func openTerminal(c handshake.Conn, spec workload.Spec, console bool) error {
	if !spec.TTY {
		return nil
	}
	const path = "/dev/pts/ptmx"
	master, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { _ = unix.Close(master) }()
	var st unix.Statfs_t // an image may have put something else there
	if err := unix.Fstatfs(master, &st); err != nil || st.Type != unix.DEVPTS_SUPER_MAGIC {
		return errors.Join(fmt.Errorf("%s is not of devpts", path), err)
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock the pseudo-terminal: %w", err)
	}
	slave, err := terminal.Peer(master)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(slave) }()
	if err := terminal.SetSize(master, spec.Size); err != nil {
		return err
	}
	if err := c.SendFile(handshake.Message{Kind: handshake.KindTerminal}, master); err != nil {
		return err
	}
	if err := unix.Fchown(slave, int(spec.User.UID), -1); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("give the terminal to the user: %w", err)
	}
	if err := unix.IoctlSetInt(slave, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("make it the controlling terminal: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return fmt.Errorf("make it standard stream %d: %w", fd, err)
		}
	}
	if !console {
		return nil
	}
	return bindConsole()
}

// bindConsole makes standard input, the slave, also /dev/console.
func bindConsole() error {
	dev, err := os.OpenFile("/dev", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = dev.Close() }()
	slave, err := cloneMount(os.Stdin, "", false)
	if err != nil {
		return fmt.Errorf("bind /dev/console: %w", err)
	}
	defer func() { _ = slave.Close() }()
	if err := bindFile(slave, dev, "console"); err != nil {
		return fmt.Errorf("bind /dev/console: %w", err)
	}
	return nil
}
