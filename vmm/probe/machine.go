package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/duplex-run/duplex/vmm/kvm"
	"github.com/duplex-run/duplex/vmm/memory"
)

// machine is a VM with one vCPU and guestSize bytes of memory.
type machine struct {
	mem *memory.Memory
	vm  *kvm.VM
	cpu *kvm.VCPU
}

// newMachine makes a machine whose vCPU will go to entry in long mode.
func newMachine(sys *kvm.System, entry uint64) (_ *machine, err error) {
	m := &machine{}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	if m.mem, err = memory.New(guestSize); err != nil {
		return nil, err
	}
	region := m.mem.Regions()[0]
	writeGuest(region.Bytes)
	if m.vm, err = sys.CreateVM(); err != nil {
		return nil, err
	}
	for _, f := range []func() error{
		func() error { return m.vm.SetMemory(0, 0, region.HostAddress(), guestSize) },
		m.vm.ReservePages,
		m.vm.CreateIRQChip,
		func() error { m.cpu, err = m.vm.CreateVCPU(0); return err },
		func() error { return m.setCPU(sys, entry) },
	} {
		if err := f(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *machine) setCPU(sys *kvm.System, entry uint64) error {
	leaves, err := sys.SupportedCPUID()
	if err != nil {
		return err
	}
	if err := m.cpu.SetCPUID(leaves); err != nil {
		return err
	}
	s, err := m.cpu.Sregs()
	if err != nil {
		return err
	}
	const cr0Protected, codeType, dataType = 0x11, 0xb, 0x3
	s.CS = kvm.Segment{Limit: 0xffffffff, Selector: 0x08, Type: codeType, Present: 1, DB: 1, S: 1, G: 1}
	data := kvm.Segment{Limit: 0xffffffff, Selector: 0x10, Type: dataType, Present: 1, DB: 1, S: 1, G: 1}
	s.DS, s.ES, s.SS, s.FS, s.GS = data, data, data, data, data
	s.GDT = kvm.Table{Base: gdtBase, Limit: 3*8 - 1}
	s.CR0 = cr0Protected
	if err := m.cpu.SetSregs(s); err != nil {
		return err
	}
	return m.cpu.SetRegs(kvm.Regs{RIP: codeBase, RBX: entry, RFLAGS: 2})
}

func (m *machine) close() error {
	var errs error
	if m.cpu != nil {
		errs = errors.Join(errs, m.cpu.Close())
	}
	if m.vm != nil {
		errs = errors.Join(errs, m.vm.Close())
	}
	if m.mem != nil {
		errs = errors.Join(errs, m.mem.Close())
	}
	return errs
}

// run enters the guest until onPort, which gets each access to resultPort, says
// that it has seen enough. Otherwise it says what the guest did instead within
// the limit; an error is KVM failing us.
func (m *machine) run(limit time.Duration, onPort func(kvm.IO) bool) (failure string, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m.cpu.Bind()
	var late atomic.Bool
	kicked := make(chan struct{})
	timer := time.AfterFunc(limit, func() {
		defer close(kicked)
		late.Store(true)
		m.cpu.Kick()
	})
	defer func() {
		if !timer.Stop() {
			<-kicked // the vCPU must outlive its kick
		}
	}()
	for !late.Load() {
		reason, err := m.cpu.Run()
		if err != nil {
			return "", err
		}
		switch reason {
		case kvm.ExitIntr:
		case kvm.ExitIO:
			io, err := m.cpu.IO()
			if err != nil {
				return "", err
			}
			if io.Port == resultPort && onPort(io) {
				return "", nil
			}
		default:
			return m.describe(reason), nil
		}
	}
	return fmt.Sprintf("nothing happened within %v", limit), nil
}

func (m *machine) describe(reason kvm.ExitReason) string {
	switch reason {
	case kvm.ExitShutdown:
		return "the guest's CPU shut down (triple fault)"
	case kvm.ExitInternalError:
		return "KVM gave up: " + m.cpu.InternalError()
	case kvm.ExitFailEntry:
		return fmt.Sprintf("the hardware refused to enter the guest: %#x", m.cpu.FailEntryReason())
	}
	return fmt.Sprintf("unexpected exit: %v", reason)
}

// try runs one step that ends by writing its result.
func try(sys *kvm.System, entry uint64) (ok bool, detail string, err error) {
	m, err := newMachine(sys, entry)
	if err != nil {
		return false, "", err
	}
	began := time.Now()
	detail, err = m.run(stepTime, func(io kvm.IO) bool {
		ok = io.Write && io.Data[0] == resultDone
		return io.Write
	})
	took := time.Since(began)
	err = errors.Join(err, m.close())
	switch {
	case detail != "":
	case ok:
		detail = fmt.Sprintf("done in %v", took.Round(time.Microsecond))
	default:
		detail = "done, with the wrong outcome"
	}
	return ok, detail, err
}

// measure runs the speed step: loops of two instructions, ten times longer each
// time, until one takes long enough for the exits around it not to matter. The
// best counts, as a busy host only ever makes a guest slower. Without any, it
// says what happened instead.
func measure(sys *kvm.System) (mips float64, failure string, err error) {
	const enough = speedTime / 10
	m, err := newMachine(sys, codeSpeed)
	if err != nil {
		return 0, "", err
	}
	n, most := uint32(1000), uint32(100_000_000)
	var began time.Time
	failure, err = m.run(speedTime, func(io kvm.IO) bool {
		if !io.Write {
			binary.LittleEndian.PutUint32(io.Data, n)
			began = time.Now()
			return false
		}
		took := time.Since(began)
		mips = max(mips, 2*float64(n)/max(took.Seconds(), 1e-9)/1e6)
		done := n == most || took >= enough && n >= most/100
		n = min(n*10, most)
		return done
	})
	return mips, failure, errors.Join(err, m.close())
}
