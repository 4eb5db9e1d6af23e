package vmm

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/acpi"
	"github.com/duplex-run/duplex/vmm/boot"
	"github.com/duplex-run/duplex/vmm/bus"
	"github.com/duplex-run/duplex/vmm/kvm"
	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio"
)

// DefaultCmdline is a kernel command line that suits the machine: only what is
// critical on the console; a reset after a panic, by the i8042, so that a run
// always ends; nothing spent on PCI and on serial ports that are not there; and
// no self-tests of the kernel's cryptography, which are half of the boot.
const DefaultCmdline = "console=ttyS0 loglevel=3 panic=-1 reboot=k pci=off 8250.nr_uarts=1 cryptomgr.notests"

// VM is a virtual machine, loaded and ready to run once.
type VM struct {
	cfg     Config
	mem     *memory.Memory
	vm      *kvm.VM
	cpu     *kvm.VCPU
	ports   bus.Bus
	mmio    bus.Bus
	console *console
	wires   []*wire         // one a virtio device
	irqs    []*eventFD      // of all devices, for Close
	devices []virtio.Device // owned

	counts counters
	ran    atomic.Bool
	stop   atomic.Bool // the vCPU's loop ends
	endMu  sync.Mutex
	ended  *Exit // why, the first time somebody said so
	closed sync.Once
}

// New checks the configuration, makes the machine and loads the kernel. On
// error nothing is left behind, and the Devices stay the caller's.
func New(cfg Config) (*VM, error) {
	in, err := cfg.open()
	if err != nil {
		return nil, err
	}
	v := &VM{cfg: cfg}
	err = v.build(in)
	if err = errors.Join(err, in.close()); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	v.devices = cfg.Devices
	return v, nil
}

func (v *VM) build(in *input) error {
	sys, err := openKVM()
	if err != nil {
		return err
	}
	err = v.create(sys)
	if err = errors.Join(err, sys.Close()); err != nil {
		return err
	}
	v.event(Created)
	if err := v.attach(); err != nil {
		return err
	}
	if _, err := acpi.Build(v.mem, v.describe()); err != nil {
		return err
	}
	start, err := in.load(v.mem)
	if err != nil {
		return err
	}
	if err := v.enter(start); err != nil {
		return err
	}
	v.event(Loaded)
	return nil
}

// create makes the VM, its memory, its interrupt controllers and its vCPU.
func (v *VM) create(sys *kvm.System) (err error) {
	if v.vm, err = sys.CreateVM(); err != nil {
		return err
	}
	if v.mem, err = memory.New(v.cfg.Memory); err != nil {
		return err
	}
	for i, r := range v.mem.Regions() {
		if err := v.vm.SetMemory(uint32(i), uint64(r.Start), r.HostAddress(), uint64(len(r.Bytes))); err != nil {
			return err
		}
	}
	if err := v.vm.ReservePages(); err != nil {
		return err
	}
	if err := v.vm.CreateIRQChip(); err != nil {
		return err
	}
	if v.cpu, err = v.vm.CreateVCPU(0); err != nil {
		return err
	}
	leaves, err := guestCPUID(sys)
	if err != nil {
		return err
	}
	return v.cpu.SetCPUID(leaves)
}

// enter sets the registers the boot protocol asks for.
func (v *VM) enter(start boot.Start) error {
	sregs, err := v.cpu.Sregs()
	if err != nil {
		return err
	}
	longMode(&sregs, start)
	if err := v.cpu.SetSregs(sregs); err != nil {
		return err
	}
	if err := v.cpu.SetRegs(kvm.Regs{
		RIP: uint64(start.RIP), RSI: uint64(start.ZeroPage), RFLAGS: rflagsFixed,
	}); err != nil {
		return err
	}
	return v.cpu.SetMSRs(bootMSRs)
}

func (v *VM) event(e Event) {
	if v.cfg.OnEvent != nil {
		v.cfg.OnEvent(e, now())
	}
}

// now is CLOCK_MONOTONIC_RAW in nanoseconds.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &ts); err != nil {
		return 0 // no kernel since 2.6.28 lacks it
	}
	return ts.Nano()
}

// Close ends what New made. Run must have returned. It is idempotent.
func (v *VM) Close() error {
	var errs error
	v.closed.Do(func() {
		for _, w := range v.wires {
			errs = errors.Join(errs, w.close())
		}
		for _, d := range v.devices {
			errs = errors.Join(errs, d.Close())
		}
		v.console.release()
		for _, e := range v.irqs {
			errs = errors.Join(errs, e.close())
		}
		if v.cpu != nil {
			errs = errors.Join(errs, v.cpu.Close())
		}
		if v.vm != nil {
			errs = errors.Join(errs, v.vm.Close())
		}
		if v.mem != nil {
			errs = errors.Join(errs, v.mem.Close())
		}
	})
	return errs
}

// KVMError is a /dev/kvm that cannot be used, with what to do about it.
type KVMError struct {
	Err    error
	Remedy string
}

func (e *KVMError) Error() string { return e.Err.Error() }

// Unwrap returns the cause; os.ErrNotExist and os.ErrPermission are told apart.
func (e *KVMError) Unwrap() error { return e.Err }

func kvmError(err error) *KVMError { return &KVMError{err, kvm.Remedy(err)} }

func openKVM() (*kvm.System, error) {
	sys, err := kvm.Open()
	if err != nil {
		return nil, kvmError(err)
	}
	if err := checkKVM(sys); err != nil {
		return nil, errors.Join(err, sys.Close())
	}
	return sys, nil
}

func checkKVM(sys *kvm.System) error {
	version, err := sys.APIVersion()
	if err != nil {
		return err
	}
	missing, err := sys.Missing()
	if err != nil {
		return err
	}
	if version != kvm.APIVersion || len(missing) > 0 {
		return &KVMError{
			fmt.Errorf("%s: API version %d, missing %v", kvm.Path, version, missing),
			"Use a newer host kernel.",
		}
	}
	return nil
}
