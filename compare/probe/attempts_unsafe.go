package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// bpfMapCreate is the head of union bpf_attr for BPF_MAP_CREATE (bpf(2)).
type bpfMapCreate struct {
	mapType, keySize, valueSize, maxEntries, flags uint32
}

// tryBPF creates an array map of one entry and drops it.
func tryBPF() error {
	attr := bpfMapCreate{mapType: unix.BPF_MAP_TYPE_ARRAY, keySize: 4, valueSize: 4, maxEntries: 1}
	// SAFETY: the kernel reads Sizeof(attr) bytes of attr during the call and
	// keeps no pointer; attr lives until after it.
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

// ioURingParams is struct io_uring_params (io_uring_setup(2)): 120 bytes, all
// zero on the way in, filled in by the kernel.
type ioURingParams [120]byte

// tryIOURing sets up a ring of one entry and drops it.
func tryIOURing() error {
	var params ioURingParams
	// SAFETY: the kernel reads and writes sizeof(struct io_uring_params), 120
	// bytes, during the call and keeps no pointer; params lives until after it.
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}
