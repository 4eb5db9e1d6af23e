package net

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// vector is one buffer of a readv or writev. It keeps the buffer alive.
type vector = unix.Iovec

// vectorOf makes a vector. Precondition: p is not empty.
func vectorOf(p []byte) vector {
	v := vector{Base: &p[0]}
	v.SetLen(len(p))
	return v
}

// bytesOf is the buffer of a vector made by vectorOf.
func bytesOf(v vector) []byte {
	// SAFETY: vectorOf made v from a slice of at least that length, and Base keeps
	// its memory alive; guest memory stays mapped until its devices are reset.
	return unsafe.Slice(v.Base, int(v.Len))
}

// readv and writev are the system calls of those names, without the allocations
// of a [][]byte. Precondition: v is not empty.
func readv(fd uintptr, v []vector) (int, unix.Errno) { return vectored(unix.SYS_READV, fd, v) }

func writev(fd uintptr, v []vector) (int, unix.Errno) { return vectored(unix.SYS_WRITEV, fd, v) }

func vectored(call, fd uintptr, v []vector) (int, unix.Errno) {
	for {
		// SAFETY: v holds len(v) iovecs, each of a live buffer of its length; the
		// kernel keeps no pointer after the call.
		n, _, errno := unix.Syscall(call, fd, uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}
