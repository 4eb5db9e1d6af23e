package kvm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Path is where the kernel offers KVM.
const Path = "/dev/kvm"

// System is an open /dev/kvm.
type System struct{ fd int }

// Open opens /dev/kvm. Errors wrap the errno (os.ErrNotExist, os.ErrPermission).
func Open() (*System, error) {
	fd, err := openRetry(Path, unix.O_RDWR|unix.O_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: Path, Err: err}
	}
	return &System{fd}, nil
}

func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// Close closes /dev/kvm; VMs made from it live on.
func (s *System) Close() error { return closeFD(&s.fd) }

func closeFD(fd *int) error {
	if *fd < 0 {
		return nil
	}
	err := unix.Close(*fd)
	*fd = -1
	return err
}

// APIVersion asks KVM_GET_API_VERSION.
func (s *System) APIVersion() (int, error) {
	v, err := ioctl(s.fd, reqGetAPIVersion, 0)
	return v, wrap("KVM_GET_API_VERSION", err)
}

// Check asks KVM_CHECK_EXTENSION: 0 means that the capability is missing.
func (s *System) Check(c Capability) (int, error) {
	v, err := ioctl(s.fd, reqCheckExtension, uintptr(c))
	return v, wrap("KVM_CHECK_EXTENSION "+c.String(), err)
}

// Missing returns which of the Required capabilities this KVM lacks.
func (s *System) Missing() ([]Capability, error) {
	var missing []Capability
	for _, c := range Required {
		v, err := s.Check(c)
		if err != nil {
			return nil, err
		}
		if v == 0 {
			missing = append(missing, c)
		}
	}
	return missing, nil
}

// SupportedCPUID returns the leaves this KVM can offer a guest, its own at
// 0x40000000 among them.
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	t := &cpuidTable{n: maxCPUID}
	if err := ioctlPtr(s.fd, reqGetSupportedCPUID, t); err != nil {
		return nil, wrap("KVM_GET_SUPPORTED_CPUID", err)
	}
	return append([]CPUIDEntry(nil), t.entries[:min(t.n, maxCPUID)]...), nil
}

// CreateVM makes a virtual machine without memory, interrupt controller or
// vCPUs. It may take tens of milliseconds in some cgroups.
func (s *System) CreateVM() (*VM, error) {
	size, err := ioctl(s.fd, reqGetVCPUMmapSize, 0)
	if err != nil {
		return nil, wrap("KVM_GET_VCPU_MMAP_SIZE", err)
	}
	if size < runPageSize {
		return nil, fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %d bytes, at least %d expected", size, runPageSize)
	}
	for {
		fd, err := ioctl(s.fd, reqCreateVM, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, wrap("KVM_CREATE_VM", err)
		}
		return &VM{fd: fd, runSize: size}, nil
	}
}

func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", op, err)
}
