package cgroups

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loadAttr is the part of union bpf_attr that BPF_PROG_LOAD reads
// (linux/bpf.h).
type loadAttr struct {
	progType uint32
	insnCnt  uint32
	insns    uint64
	license  uint64
	logLevel uint32
	logSize  uint32
	logBuf   uint64
	version  uint32
	flags    uint32
}

// attachAttr is the part that BPF_PROG_ATTACH reads.
type attachAttr struct {
	targetFD   uint32
	progFD     uint32
	attachType uint32
	flags      uint32
}

// loadAttempts bounds how often a program is loaded: the kernel's check of it ends
// with EAGAIN when a signal comes, such as those of Go's own.
const loadAttempts = 100

// loadDeviceFilter loads a program and returns its descriptor, close-on-exec.
func loadDeviceFilter(prog []byte) (int, error) {
	if len(prog) == 0 || len(prog)%8 != 0 {
		return -1, errors.New("no program")
	}
	license := []byte("Apache-2.0\x00")
	attr := loadAttr{
		progType: unix.BPF_PROG_TYPE_CGROUP_DEVICE, insnCnt: uint32(len(prog) / 8),
		// SAFETY: both slices are not empty and are kept alive over the call,
		// which reads them and keeps no pointer.
		insns:   uint64(uintptr(unsafe.Pointer(&prog[0]))),
		license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	var fd uintptr
	var errno unix.Errno
	for range loadAttempts {
		// SAFETY: the kernel reads sizeof(attr) bytes of attr and no more.
		fd, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		if errno != unix.EAGAIN {
			break
		}
	}
	runtime.KeepAlive(prog)
	runtime.KeepAlive(license)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func attachDeviceFilter(cgroup, prog int) error {
	attr := attachAttr{targetFD: uint32(cgroup), progFD: uint32(prog), attachType: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI}
	// SAFETY: the kernel reads sizeof(attr) bytes of attr and no more.
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return errno
	}
	return nil
}
