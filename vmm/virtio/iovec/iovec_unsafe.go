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

// call makes the system call. off is the whole offset: on 64-bit machines the
// kernel ignores its high half.
func (l *List) call(trap uintptr, fd int, off, flags uintptr) (int, error) {
	if len(l.vec) == 0 {
		return 0, nil
	}
	n, errno := vectored(trap, uintptr(fd), l.vec, off, flags)
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}

// Read and Write are readv(2) and writev(2) on pieces made by Of, without the
// allocations of a [][]byte. Precondition: v is not empty.
func Read(fd uintptr, v []unix.Iovec) (int, unix.Errno) { return vectored(unix.SYS_READV, fd, v, 0, 0) }

// Write is documented with Read.
func Write(fd uintptr, v []unix.Iovec) (int, unix.Errno) {
	return vectored(unix.SYS_WRITEV, fd, v, 0, 0)
}

// vectored makes a system call, again when a signal interrupted it.
func vectored(trap, fd uintptr, v []unix.Iovec, off, flags uintptr) (int, unix.Errno) {
	for {
		// SAFETY: v has len(v) entries, each made by Of from a slice that its Base
		// keeps alive; the kernel touches nothing else, and keeps no pointer.
		n, _, errno := unix.Syscall6(trap, fd, uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)), off, 0, flags)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// Bytes is the piece that v was made of.
func Bytes(v unix.Iovec) []byte {
	// SAFETY: Of made v from a slice of at least that length, and Base keeps its
	// memory alive; guest memory stays mapped until its devices are reset.
	return unsafe.Slice(v.Base, int(v.Len))
}

// address is where p is in host memory.
func address(p *byte) uint64 {
	// SAFETY: the address is only looked at.
	return uint64(uintptr(unsafe.Pointer(p)))
}
