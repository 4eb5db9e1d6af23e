package fs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// SAFETY: every call below passes the kernel pointers to Go memory that is alive
// until the call returns (the conversions to uintptr are in the call's argument
// list, unsafe.Pointer's rule 4), with the length of that memory. Names end with
// a NUL byte: cname is made by parseName and procName only. Iovecs point to
// non-empty slices, which the caller holds.

// cname is a file name that ends with its only NUL byte.
type cname []byte

var empty = cname{0}

func openat(dir int, name cname, flags int, mode uint32) (int, unix.Errno) {
	for {
		fd, _, e := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), uintptr(flags|unix.O_CLOEXEC), uintptr(mode), 0, 0)
		if e != unix.EINTR {
			return int(fd), e
		}
	}
}

// openat2 opens name below dir as how says.
func openat2(dir int, name cname, how *unix.OpenHow) (int, unix.Errno) {
	for try := 0; ; try++ {
		fd, _, e := unix.Syscall6(unix.SYS_OPENAT2, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(how)), unix.SizeofOpenHow, 0, 0)
		// EAGAIN: the kernel could not be sure that no race led outside.
		if e != unix.EINTR && e != unix.EAGAIN || try == 32 {
			return int(fd), e
		}
	}
}

// fstatat does not follow a symbolic link; with the name empty it is of dir.
func fstatat(dir int, name cname, st *unix.Stat_t) unix.Errno {
	_, _, e := unix.Syscall6(unix.SYS_NEWFSTATAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(st)),
		unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_EMPTY_PATH, 0, 0)
	return e
}

// utimensat sets the times of the file open as fd, which may be O_PATH.
func utimensat(fd int, times *[2]unix.Timespec) unix.Errno {
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])), uintptr(unsafe.Pointer(times)),
		unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, 0, 0)
	return e
}

func preadv(fd int, iov []unix.Iovec, off uint64) (int, unix.Errno) {
	n, _, e := unix.Syscall6(unix.SYS_PREADV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)), uintptr(off), 0, 0)
	return int(n), e
}

func pwritev2(fd int, iov []unix.Iovec, off uint64, flags int) (int, unix.Errno) {
	n, _, e := unix.Syscall6(unix.SYS_PWRITEV2, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)), uintptr(off), 0, uintptr(flags))
	return int(n), e
}

// vectors appends the pieces of bufs that hold bytes off to off+n to dst.
func vectors(dst []unix.Iovec, bufs [][]byte, off, n int) []unix.Iovec {
	for _, b := range bufs {
		if n <= 0 {
			break
		}
		if off >= len(b) {
			off -= len(b)
			continue
		}
		b = b[off:min(len(b), off+n)]
		off = 0
		n -= len(b)
		v := unix.Iovec{Base: &b[0]}
		v.SetLen(len(b))
		dst = append(dst, v)
	}
	return dst
}
