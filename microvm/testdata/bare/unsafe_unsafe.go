package main

import (
	"net/netip"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blkRange is an ioctl on a range of a block device: BLKDISCARD, BLKZEROOUT.
func blkRange(f *os.File, req uint, off, n uint64) error {
	args := [2]uint64{off, n}
	// SAFETY: the kernel reads the two numbers, and keeps nothing.
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(req), uintptr(unsafe.Pointer(&args)))
	if errno != 0 {
		return errno
	}
	return nil
}

// defaultRoute adds a route to everything by way of a gateway: SIOCADDRT with a
// struct rtentry of <linux/route.h>.
func defaultRoute(name string, gateway netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	const up, viaGateway = 1, 2
	var entry struct {
		_                     uint64
		dst, gateway, genmask unix.RawSockaddrInet4
		flags                 uint16
		_                     [6]byte
		_, _                  uint64
		metric                int16
		_                     [6]byte
		dev                   *byte
		mtu, window           uint64
		irtt                  uint16
		_                     [6]byte
	}
	entry.dst.Family, entry.genmask.Family = unix.AF_INET, unix.AF_INET
	entry.gateway.Family, entry.gateway.Addr = unix.AF_INET, gateway.As4()
	entry.flags = up | viaGateway
	dev := append([]byte(name), 0)
	entry.dev = &dev[0]
	// SAFETY: the structure has the kernel's layout, and it and dev live through
	// the call; the kernel keeps neither.
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&entry)))
	runtime.KeepAlive(dev)
	if errno != 0 {
		return errno
	}
	return nil
}

// register is a 32-bit register at an offset of mapped memory.
func register(page []byte, off int) *uint32 {
	// SAFETY: the offset is a multiple of 4 below the length of a live mapping.
	return (*uint32)(unsafe.Pointer(&page[off]))
}
