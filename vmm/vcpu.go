package vmm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/duplex-run/duplex/vmm/kvm"
)

// ErrRan reports a second Run: a VM boots once.
var ErrRan = errors.New("the VM has run already")

// Run runs the guest until it ends or ctx does, and says how. When ctx ends,
// Run returns within 100 ms whatever the guest does, with reason Canceled and no
// error. An error means that KVM itself failed.
func (v *VM) Run(ctx context.Context) (Exit, error) {
	if v.ran.Swap(true) {
		return Exit{}, ErrRan
	}
	defer reserve(1)()
	failed := make(chan error, 1)
	go func() {
		// The thread is KVM's vCPU; Kick signals it by its id.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		failed <- v.loop()
	}()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		v.end(Exit{Reason: Canceled, Detail: context.Cause(ctx).Error()})
		v.console.release() // a vCPU that waits for the console goes on
		v.cpu.Kick()
		err = <-failed
	}
	v.console.drain(ctx)
	v.counts.resident.Store(resident(v.mem))
	if err != nil {
		return Exit{}, err
	}
	v.endMu.Lock()
	defer v.endMu.Unlock()
	return *v.ended, nil
}

// running is the number of vCPUs of all VMs in this process.
var running atomic.Int64

// reserve makes room in Go's scheduler for n more vCPUs; what it returns gives the
// room back to the next VM. A thread in KVM_RUN keeps its P until sysmon takes it
// away, up to 10 ms later, and everything else in the process waits that long when
// there are no more Ps than vCPUs. With GOMAXPROCS=1 the first byte of a workload
// came 145 ms later (in instruction time). The number of Ps
// is never lowered: that would stop the world again, and an idle P costs nothing.
func reserve(n int) func() {
	want := runtime.NumCPU() + int(running.Add(int64(n)))
	if runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
	return func() { running.Add(-int64(n)) }
}

// end stops the vCPU's loop after the current exit. The first reason stands.
func (v *VM) end(e Exit) {
	v.endMu.Lock()
	defer v.endMu.Unlock()
	if v.ended == nil {
		v.ended = &e
	}
	v.stop.Store(true)
}

// loop enters the guest and handles its exits until somebody calls end.
func (v *VM) loop() error {
	v.cpu.Bind()
	v.event(Entered)
	for !v.stop.Load() {
		reason, err := v.cpu.Run()
		if err != nil {
			return err
		}
		v.counts.exit(reason)
		if err := v.handle(reason); err != nil {
			return err
		}
	}
	return nil
}

// handle serves one exit. What the guest may cause ends the run; an error is
// KVM breaking its own rules.
func (v *VM) handle(reason kvm.ExitReason) error {
	switch reason {
	case kvm.ExitIO:
		return v.portAccess()
	case kvm.ExitMMIO:
		return v.mmioAccess()
	case kvm.ExitIntr: // a signal: enter again, unless loop sees the stop flag
	case kvm.ExitShutdown:
		v.end(Exit{TripleFault, v.whereUnlessReset()})
	case kvm.ExitSystemEvent:
		v.systemEvent(v.cpu.SystemEventType())
	case kvm.ExitInternalError:
		v.end(Exit{InternalError, v.cpu.InternalError() + ", " + v.where()})
	case kvm.ExitFailEntry:
		v.end(Exit{InternalError, fmt.Sprintf("hardware refused the entry: %#x, %s", v.cpu.FailEntryReason(), v.where())})
	default:
		v.end(Exit{InternalError, fmt.Sprintf("unexpected exit %v, %s", reason, v.where())})
	}
	return nil
}

// systemEvent is a guest's hypercall for power: KVM_SYSTEM_EVENT_*.
func (v *VM) systemEvent(event uint32) {
	const shutdown, reset = 1, 2
	switch event {
	case shutdown:
		v.end(Exit{Reason: PowerOff})
	case reset:
		v.end(Exit{Reason: Reset})
	default:
		v.end(Exit{InternalError, fmt.Sprintf("KVM system event %d", event)})
	}
}

func (v *VM) portAccess() error {
	x, err := v.cpu.IO()
	if err != nil {
		return err
	}
	v.counts.port(x.Port)
	for item := x.Data; len(item) > 0 && !v.stop.Load(); item = item[x.Size:] {
		if x.Write {
			v.ports.Write(uint64(x.Port), item[:x.Size])
		} else {
			v.ports.Read(uint64(x.Port), item[:x.Size])
		}
	}
	return nil
}

func (v *VM) mmioAccess() error {
	x, err := v.cpu.MMIO()
	if err != nil {
		return err
	}
	if x.Write {
		v.mmio.Write(x.Addr, x.Data)
	} else {
		v.mmio.Read(x.Addr, x.Data)
	}
	return nil
}

// whereUnlessReset is where, or nothing when KVM has reset the vCPU, as it does
// after a shutdown on AMD processors.
func (v *VM) whereUnlessReset() string {
	const resetVector = 0xfff0
	if regs, err := v.cpu.Regs(); err == nil && regs.RIP == resetVector {
		return ""
	}
	return v.where()
}

// where says where the guest was, for an Exit's detail.
func (v *VM) where() string {
	regs, err := v.cpu.Regs()
	if err != nil {
		return err.Error()
	}
	sregs, err := v.cpu.Sregs()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("RIP %#x RSP %#x CR0 %#x CR2 %#x CR3 %#x CR4 %#x EFER %#x",
		regs.RIP, regs.RSP, sregs.CR0, sregs.CR2, sregs.CR3, sregs.CR4, sregs.EFER)
}
