package container

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// openTerminal makes a pseudo-terminal in the container's devpts, the
// controlling terminal and standard streams of this process, and sends the
// master's descriptor to duplex. Without a TTY it does nothing.
//
// The slave is opened through the master (TIOCGPTPEER), never by name: a name
// could lead elsewhere.
func openTerminal(c conn, spec workload.Spec) error {
	if !spec.TTY {
		return nil
	}
	master, err := unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/pts/ptmx: %w", err)
	}
	defer func() { _ = unix.Close(master) }()
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock the pseudo-terminal: %w", err)
	}
	slave, err := ptPeer(master)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(slave) }()
	if err := setSize(master, spec.Size); err != nil {
		return err
	}
	if err := c.sendFile(message{Kind: kindTerminal}, master); err != nil {
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
	return bindConsole()
}

// ptPeer opens the slave of the pseudo-terminal master.
func ptPeer(master int) (int, error) {
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER,
		unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, fmt.Errorf("open the slave: %w", errno)
	}
	return int(slave), nil
}

// openPeer is ptPeer for a file that is in use.
func openPeer(master *os.File) (*os.File, error) {
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, err
	}
	slave := -1
	var perr error
	if err := raw.Control(func(fd uintptr) { slave, perr = ptPeer(int(fd)) }); err != nil {
		return nil, err
	}
	if perr != nil {
		return nil, perr
	}
	return os.NewFile(uintptr(slave), "terminal-slave"), nil
}

// setSize sets a terminal's size; sizes of zero are left alone.
func setSize(fd int, size workload.WinSize) error {
	if size.Rows == 0 || size.Cols == 0 {
		return nil
	}
	err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	if err != nil {
		return fmt.Errorf("set the terminal's size: %w", err)
	}
	return nil
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
