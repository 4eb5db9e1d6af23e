package kvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ExitReason is kvm_run.exit_reason.
type ExitReason uint32

// The exits a VMM with an in-kernel irqchip may see.
const (
	ExitUnknown       ExitReason = 0
	ExitException     ExitReason = 1
	ExitIO            ExitReason = 2
	ExitHypercall     ExitReason = 3
	ExitDebug         ExitReason = 4
	ExitHLT           ExitReason = 5
	ExitMMIO          ExitReason = 6
	ExitIRQWindow     ExitReason = 7
	ExitShutdown      ExitReason = 8
	ExitFailEntry     ExitReason = 9
	ExitIntr          ExitReason = 10
	ExitInternalError ExitReason = 17
	ExitSystemEvent   ExitReason = 24
)

var exitNames = map[ExitReason]string{
	ExitUnknown: "unknown", ExitException: "exception", ExitIO: "io", ExitHypercall: "hypercall",
	ExitDebug: "debug", ExitHLT: "hlt", ExitMMIO: "mmio", ExitIRQWindow: "irq_window",
	ExitShutdown: "shutdown", ExitFailEntry: "fail_entry", ExitIntr: "intr",
	ExitInternalError: "internal_error", ExitSystemEvent: "system_event",
}

func (r ExitReason) String() string {
	if s, ok := exitNames[r]; ok {
		return s
	}
	return fmt.Sprintf("exit_%d", uint32(r))
}

// Named says whether String has a name for r.
func (r ExitReason) Named() bool {
	_, ok := exitNames[r]
	return ok
}

// Offsets in struct kvm_run (x86-64).
const (
	runPageSize      = 4096
	offExitReason    = 8
	offData          = 32 // the union, by exit reason
	offMMIOData      = offData + 8
	offMMIOLen       = offData + 16
	offMMIOWrite     = offData + 20
	offInternalData  = offData + 8
	maxInternalWords = 16
)

// VCPU is a virtual CPU. One goroutine, locked to its thread, uses it; only
// Kick may be called from elsewhere.
type VCPU struct {
	fd   int
	page []byte
	tid  atomic.Int64 // of the thread in Run; 0 before Bind and after Unbind
	base atomic.Int64 // what the thread had used at Bind
	used atomic.Int64 // CPUTime, once Unbind was called
}

// Close unmaps the run page and drops the vCPU. Run must have returned.
func (c *VCPU) Close() error {
	var err error
	if c.page != nil {
		err = unix.Munmap(c.page)
		c.page = nil
	}
	return errors.Join(err, closeFD(&c.fd))
}

// Bind notes the calling thread as the one that runs the vCPU, for Kick.
// Precondition: the goroutine is locked to its thread (runtime.LockOSThread).
func (c *VCPU) Bind() {
	tid := unix.Gettid()
	c.base.Store(threadTime(tid))
	c.tid.Store(int64(tid))
}

// Run enters the guest until its next exit. It returns ExitIntr when a signal
// or Kick came first: there is nothing to handle then. The guest's view of an
// IO or MMIO read is completed by the next Run.
func (c *VCPU) Run() (ExitReason, error) {
	_, err := ioctl(c.fd, reqRun, 0)
	switch {
	case err == nil:
		return ExitReason(binary.NativeEndian.Uint32(c.page[offExitReason:])), nil
	case err == unix.EINTR, err == unix.EAGAIN:
		return ExitIntr, nil
	}
	return 0, wrap("KVM_RUN", err)
}

// Kick makes the current or next Run return ExitIntr, and every one after it
// until Unkick. Set the flag that tells the vCPU's goroutine why before calling
// it. Safe from any goroutine while the VCPU is not closed.
func (c *VCPU) Kick() {
	c.setImmediateExit(true)
	if tid := c.tid.Load(); tid != 0 {
		// SIGURG is the signal the Go runtime itself uses to interrupt threads:
		// its handler is always there and takes spurious ones. A thread that has
		// ended in between gives ESRCH, which is fine.
		_ = unix.Tgkill(unix.Getpid(), int(tid), unix.SIGURG)
	}
}

// Unkick lets Run enter the guest again. The vCPU's goroutine calls it after an
// ExitIntr and before it looks at the flags set before Kick: so none is missed.
func (c *VCPU) Unkick() { c.setImmediateExit(false) }

// Unbind undoes Bind, on the same thread: the thread is about to do other things.
func (c *VCPU) Unbind() {
	c.used.Store(c.CPUTime())
	c.tid.Store(0)
}

// CPUTime is the processor time that the vCPU's thread has used between Bind and
// Unbind, in nanoseconds. Safe from any goroutine.
func (c *VCPU) CPUTime() int64 {
	tid := c.tid.Load()
	if tid == 0 {
		return c.used.Load()
	}
	if now := threadTime(int(tid)); now != 0 {
		return now - c.base.Load()
	}
	return c.used.Load() // ended in between
}

// threadTime is the processor time that a thread of this process has used, in
// nanoseconds; 0 when there is none such.
func threadTime(tid int) int64 {
	// The clock of another thread: MAKE_THREAD_CPUCLOCK of the kernel's
	// <linux/posix-timers.h>, with CPUCLOCK_SCHED.
	const perThread, sched = 4, 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^tid)<<3|perThread|sched, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}

// IO is a port access: Data holds Count items of Size bytes; for an input the
// handler fills it in place.
type IO struct {
	Port  uint16
	Size  int // bytes an item: 1, 2 or 4
	Write bool
	Data  []byte
}

// IO describes the current ExitIO.
func (c *VCPU) IO() (IO, error) {
	d := c.page[offData:]
	size, count := int(d[1]), int(binary.NativeEndian.Uint32(d[4:]))
	off := binary.NativeEndian.Uint64(d[8:])
	x := IO{Port: binary.NativeEndian.Uint16(d[2:]), Size: size, Write: d[0] == 1}
	page := uint64(len(c.page))
	if (size != 1 && size != 2 && size != 4) || count < 1 || count > len(c.page) ||
		off > page || uint64(size*count) > page-off {
		return IO{}, fmt.Errorf("port exit: %d items of %d bytes at %d of %d", count, size, off, page)
	}
	end := off + uint64(size*count)
	x.Data = c.page[off:end:end]
	return x, nil
}

// MMIO is a memory-mapped access of 1 to 8 bytes; for a read the handler fills
// Data in place.
type MMIO struct {
	Addr  uint64
	Write bool
	Data  []byte
}

// MMIO describes the current ExitMMIO.
func (c *VCPU) MMIO() (MMIO, error) {
	n := binary.NativeEndian.Uint32(c.page[offMMIOLen:])
	if n < 1 || n > 8 {
		return MMIO{}, fmt.Errorf("mmio exit: %d bytes", n)
	}
	return MMIO{
		Addr:  binary.NativeEndian.Uint64(c.page[offData:]),
		Write: c.page[offMMIOWrite] != 0,
		Data:  c.page[offMMIOData : offMMIOData+n],
	}, nil
}

// Sub-errors of ExitInternalError.
const (
	internalEmulation = 1
	// With this sub-error, data[0] may have this flag: then data[1] starts with
	// the length of the instruction bytes and the bytes, 15 at most.
	emulationHasBytes = 1
)

var internalErrors = map[uint32]string{
	internalEmulation: "it cannot emulate an instruction",
	2:                 "two exceptions at once",
	3:                 "an exit while it delivered an event",
	4:                 "an exit it does not expect",
}

// InternalError describes the current ExitInternalError, for people.
func (c *VCPU) InternalError() string {
	suberror := binary.NativeEndian.Uint32(c.page[offData:])
	n := min(binary.NativeEndian.Uint32(c.page[offData+4:]), maxInternalWords)
	data := c.page[offInternalData : offInternalData+8*n]
	text, known := internalErrors[suberror]
	if !known {
		text = fmt.Sprintf("internal error %d", suberror)
	}
	if suberror == internalEmulation && n >= 3 && data[0]&emulationHasBytes != 0 {
		length := min(data[8], 15)
		return fmt.Sprintf("%s (% x)", text, data[9:9+length])
	}
	if n > 0 {
		text += fmt.Sprintf(" (% x)", data)
	}
	return text
}

// FailEntryReason is the hardware's reason for the current ExitFailEntry.
func (c *VCPU) FailEntryReason() uint64 { return binary.NativeEndian.Uint64(c.page[offData:]) }

// SystemEventType is the type of the current ExitSystemEvent: 1 shutdown,
// 2 reset, 3 crash.
func (c *VCPU) SystemEventType() uint32 { return binary.NativeEndian.Uint32(c.page[offData:]) }

// Regs reads the general-purpose registers.
func (c *VCPU) Regs() (Regs, error) {
	var r Regs
	err := ioctlPtr(c.fd, reqGetRegs, &r)
	return r, wrap("KVM_GET_REGS", err)
}

// SetRegs writes the general-purpose registers.
func (c *VCPU) SetRegs(r Regs) error {
	return wrap("KVM_SET_REGS", ioctlPtr(c.fd, reqSetRegs, &r))
}

// Sregs reads the segment and control registers.
func (c *VCPU) Sregs() (Sregs, error) {
	var s Sregs
	err := ioctlPtr(c.fd, reqGetSregs, &s)
	return s, wrap("KVM_GET_SREGS", err)
}

// SetSregs writes the segment and control registers.
func (c *VCPU) SetSregs(s Sregs) error {
	return wrap("KVM_SET_SREGS", ioctlPtr(c.fd, reqSetSregs, &s))
}

// SetCPUID sets what the guest's CPUID instruction answers, before the first Run.
func (c *VCPU) SetCPUID(entries []CPUIDEntry) error {
	if len(entries) > maxCPUID {
		return fmt.Errorf("KVM_SET_CPUID2: %d entries, at most %d", len(entries), maxCPUID)
	}
	t := &cpuidTable{n: uint32(len(entries))}
	copy(t.entries[:], entries)
	return wrap("KVM_SET_CPUID2", ioctlPtr(c.fd, reqSetCPUID2, t))
}

// SetMSRs writes model-specific registers, at most 256. KVM stops at the first
// it refuses, which is named.
func (c *VCPU) SetMSRs(msrs []MSR) error {
	if len(msrs) > maxMSRs {
		return fmt.Errorf("KVM_SET_MSRS: %d entries, at most %d", len(msrs), maxMSRs)
	}
	t := &msrTable{n: uint32(len(msrs))}
	copy(t.entries[:], msrs)
	n, err := ioctlCount(c.fd, reqSetMSRs, t)
	if err != nil {
		return wrap("KVM_SET_MSRS", err)
	}
	if n < len(msrs) {
		return fmt.Errorf("KVM_SET_MSRS: refused %#x", msrs[n].Index)
	}
	return nil
}
