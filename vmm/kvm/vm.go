package kvm

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// VM is a virtual machine.
type VM struct {
	fd      int
	runSize int
}

// Close drops the VM. KVM frees it once its vCPUs are closed too.
func (v *VM) Close() error { return closeFD(&v.fd) }

// SetMemory puts size bytes of host memory at host behind guest physical
// address guest, in the given slot. All three are multiples of 4096. The memory
// must stay mapped until the VM and its vCPUs are closed.
func (v *VM) SetMemory(slot uint32, guest, host, size uint64) error {
	r := memoryRegion{slot: slot, guest: guest, size: size, userspaceStart: host}
	return wrap("KVM_SET_USER_MEMORY_REGION", ioctlPtr(v.fd, reqSetUserMemoryRegion, &r))
}

// Guest physical addresses of the pages that ReservePages gives KVM, in the
// hole below 4 GiB: one, and behind it three.
const (
	identityMapAddr uint64  = 0xfffbc000
	tssAddr         uintptr = 0xfffbd000
)

// ReservePages gives KVM the guest pages that Intel processors without
// unrestricted guests need while a vCPU is in real mode. Call it before
// CreateVCPU.
func (v *VM) ReservePages() error {
	addr := identityMapAddr
	if err := ioctlPtr(v.fd, reqSetIdentityMapAddr, &addr); err != nil {
		return wrap("KVM_SET_IDENTITY_MAP_ADDR", err)
	}
	_, err := ioctl(v.fd, reqSetTSSAddr, tssAddr)
	return wrap("KVM_SET_TSS_ADDR", err)
}

// CreateIRQChip makes the in-kernel PICs, I/O APIC (24 pins, GSI 0 to 23) and,
// for vCPUs made afterwards, local APICs.
func (v *VM) CreateIRQChip() error {
	_, err := ioctl(v.fd, reqCreateIRQChip, 0)
	return wrap("KVM_CREATE_IRQCHIP", err)
}

// Line is an input of the irqchips, by its GSI.
type Line struct {
	vm  *VM
	gsi uint32
	mu  sync.Mutex // one edge at a time
}

// Line returns the line of a GSI. Precondition: CreateIRQChip was called.
func (v *VM) Line(gsi uint32) *Line { return &Line{vm: v, gsi: gsi} }

// Pulse raises and lowers the line: an edge. The guest has it when Pulse returns;
// an irqfd whose GSI goes through the I/O APIC is delivered later, by a worker
// thread of the kernel, which costs two context switches. Safe from any goroutine
// until the VM is closed.
func (l *Line) Pulse() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, level := range []uint32{1, 0} {
		if err := ioctlPtr(l.vm.fd, reqIRQLine, &irqLevel{gsi: l.gsi, level: level}); err != nil {
			return wrap("KVM_IRQ_LINE", err)
		}
	}
	return nil
}

// IRQFD makes every write to the eventfd an edge on the GSI, without an exit.
func (v *VM) IRQFD(eventfd int, gsi uint32) error {
	return wrap("KVM_IRQFD", ioctlPtr(v.fd, reqIRQFD, &irqFD{fd: uint32(eventfd), gsi: gsi}))
}

// ioEventDataMatch asks that only writes of the given value count.
const ioEventDataMatch = 1

// IOEventFD makes a 32-bit guest write of value at MMIO address addr signal the
// eventfd instead of ending KVM_RUN.
func (v *VM) IOEventFD(eventfd int, addr uint64, value uint32) error {
	return wrap("KVM_IOEVENTFD", ioctlPtr(v.fd, reqIOEventFD, &ioEventFD{
		datamatch: uint64(value), addr: addr, len: 4, fd: int32(eventfd), flags: ioEventDataMatch,
	}))
}

// CreateVCPU makes the vCPU with the given number, which is its APIC id.
func (v *VM) CreateVCPU(id int) (*VCPU, error) {
	fd, err := ioctl(v.fd, reqCreateVCPU, uintptr(id))
	if err != nil {
		return nil, wrap("KVM_CREATE_VCPU", err)
	}
	page, err := unix.Mmap(fd, 0, v.runSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(wrap("map the vCPU's run page", err), unix.Close(fd))
	}
	return &VCPU{fd: fd, page: page}, nil
}
