package blk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// blockDiscard discards n bytes of a block device (BLKDISCARD).
func blockDiscard(fd int, off, n int64) error {
	span := [2]uint64{uint64(off), uint64(n)}
	// SAFETY: the kernel reads two 64-bit words from span.
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span)))
	if errno != 0 {
		return errno
	}
	return nil
}
