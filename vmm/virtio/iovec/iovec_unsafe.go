package iovec

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadAt fills the pieces from the file at offset off (preadv2(2)) with flags
// such as unix.RWF_NOWAIT, and returns how many bytes it got; zero at the end of
// the file.
func (l *List) ReadAt(fd int, off int64, flags int) (int, error) {
	if flags == 0 {
		return l.call(unix.SYS_PREADV, fd, uintptr(off), 0)
	}
	return l.call(unix.SYS_PREADV2, fd, uintptr(off), uintptr(flags))
}

// WriteAt writes the pieces to the file at offset off (pwritev2(2)) with flags
// such as unix.RWF_DSYNC, and returns how many bytes it took.
func (l *List) WriteAt(fd int, off int64, flags int) (int, error) {
	if flags == 0 {
		return l.call(unix.SYS_PWRITEV, fd, uintptr(off), 0)
	}
	return l.call(unix.SYS_PWRITEV2, fd, uintptr(off), uintptr(flags))
}

// call makes the system call, again when a signal interrupted it. off is the
// whole offset: on 64-bit machines the kernel ignores its high half.
func (l *List) call(trap uintptr, fd int, off, flags uintptr) (int, error) {
	if len(l.vec) == 0 {
		return 0, nil
	}
	for {
		// SAFETY: vec has len(vec) entries, each made by add from a slice that lives as
		// long as vec does; the kernel touches nothing else.
		n, _, errno := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&l.vec[0])),
			uintptr(len(l.vec)), off, 0, flags)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// address is where p is in host memory.
func address(p *byte) uint64 {
	// SAFETY: the address is only looked at.
	return uint64(uintptr(unsafe.Pointer(p)))
}
