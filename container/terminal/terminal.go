// Package terminal opens and sizes pseudo-terminals for both ends of a
// container.
package terminal

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// Peer opens the slave of the pseudo-terminal master (TIOCGPTPEER), without
// any path that could lead elsewhere. The descriptor is close-on-exec.
func Peer(master int) (int, error) {
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER,
		unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, fmt.Errorf("open the slave: %w", errno)
	}
	return int(slave), nil
}

// SetSize sets a terminal's size; sizes of zero are left alone.
func SetSize(fd int, size workload.WinSize) error {
	if size.Rows == 0 || size.Cols == 0 {
		return nil
	}
	err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	if err != nil {
		return fmt.Errorf("set the terminal's size: %w", err)
	}
	return nil
}
