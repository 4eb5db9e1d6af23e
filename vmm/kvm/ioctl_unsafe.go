package kvm

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl issues a request whose argument is a plain number.
func ioctl(fd int, req uint, arg uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), arg)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

// ioctlPtr issues a request whose argument is a T.
// Precondition: T has the size and layout the kernel expects for req; the
// request numbers in types.go carry the size of the fixed part, which
// TestLayouts compares with T.
func ioctlPtr[T any](fd int, req uint, arg *T) error {
	_, err := ioctlCount(fd, req, arg)
	return err
}

// ioctlCount is ioctlPtr for requests that return a number.
func ioctlCount[T any](fd int, req uint, arg *T) (int, error) {
	// SAFETY: arg stays alive and in place for the call (it is converted in the
	// call expression), the kernel reads and writes at most sizeof(T) by the
	// precondition of ioctlPtr, and keeps no reference after it returns.
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}
