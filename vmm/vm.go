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
	"github.com/duplex-run/duplex/vmm/serial"
	"github.com/duplex-run/duplex/vmm/trace"
	"github.com/duplex-run/duplex/vmm/virtio"
)

// MachineCmdline is what a kernel must be told of this machine: that it resets by
// the i8042, and that there is no PCI and one serial port.
const MachineCmdline = "reboot=k pci=off 8250.nr_uarts=1"

// DefaultCmdline is a kernel command line that suits the machine: only what is
// critical on the console; a reset after a panic, by the i8042, so that a run
// always ends; nothing spent on PCI and on serial ports that are not there; no
// self-tests of the kernel's cryptography, which are half of the boot; and no
// search for weak functions among the 37,000 that can be traced (the function
// tracer lists them under the name of a neighbour then, as before Linux 5.19),
// which is a sixth of the rest.
const DefaultCmdline = "console=ttyS0 loglevel=3 panic=-1 " + MachineCmdline +
	" cryptomgr.notests initcall_blacklist=ftrace_check_for_weak_functions"

// VM is a virtual machine, loaded and ready to run once.
type VM struct {
	cfg     Config
	mem     *memory.Memory
	vm      *kvm.VM
	cpus    []*vcpu
	msrs    []uint32 // that Save saves
	ports   bus.Bus
	mmio    bus.Bus
	console *console
	wires   []*wire  // one a virtio device
	irq     *eventFD // of the serial port
	serial  *serial.Port
	power   *kvm.Line       // of the power button
	devices []virtio.Device // owned
	loaded  struct{ kernel, initrd uint64 }

	gate     gate
	slow     sync.WaitGroup // writes of device statuses
	resident atomic.Uint64  // when the run ended
	ran      atomic.Bool
	stop     atomic.Bool   // the vCPUs' loops end
	stopping chan struct{} // closed when stop is set
	endMu    sync.Mutex
	ended    *Exit // why, the first time somebody said so
	closed   sync.Once
}

// New checks the configuration, makes the machine and loads the kernel. On
// error nothing is left behind, and the Devices stay the caller's.
func New(cfg Config) (*VM, error) {
	in, err := cfg.open()
	if err != nil {
		return nil, err
	}
	v := blank(cfg)
	err = v.build(in)
	if err = errors.Join(err, in.close()); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	v.devices = cfg.Devices
	return v, nil
}

// blank is a VM without anything of KVM's.
func blank(cfg Config) *VM {
	v := &VM{cfg: cfg, stopping: make(chan struct{})}
	v.gate.init(cfg.CPUs)
	return v
}

func (v *VM) build(in *input) error {
	sys, err := openKVM()
	if err != nil {
		return err
	}
	if v.mem, err = memory.New(v.cfg.Memory); err == nil {
		err = v.create(sys)
	}
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
	if err := v.newGeneration(); err != nil {
		return err
	}
	start, err := in.load(v.mem)
	if err != nil {
		return err
	}
	v.loaded.kernel, v.loaded.initrd = in.layout.Sizes()
	if err := v.enter(start); err != nil {
		return err
	}
	if err := v.beginTrace(); err != nil {
		return err
	}
	v.event(Loaded)
	return nil
}

// create makes the VM around its memory, its interrupt controllers and its vCPUs.
func (v *VM) create(sys *kvm.System) (err error) {
	if v.vm, err = sys.CreateVM(); err != nil {
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
	if v.msrs, err = listMSRs(sys); err != nil {
		return err
	}
	leaves, err := supportedCPUID(sys)
	if err != nil {
		return err
	}
	if err := v.checkMemory(leaves); err != nil {
		return err
	}
	for id := range v.cfg.CPUs {
		if err := v.createCPU(id, leaves); err != nil {
			return err
		}
	}
	return nil
}

func (v *VM) createCPU(id int, leaves []kvm.CPUIDEntry) error {
	k, err := v.vm.CreateVCPU(id)
	if err != nil {
		return fmt.Errorf("vCPU %d: %w", id, err)
	}
	c := &vcpu{vm: v, id: id, kvm: k, trace: v.cfg.Trace.Buffer(id), cpuid: guestCPUID(leaves, id, v.cfg.CPUs)}
	v.cpus = append(v.cpus, c)
	if v.cfg.Count {
		if c.counters, err = k.Counters(); err != nil {
			c.counters = nil // before Linux 5.14
		}
	}
	if err := k.SetCPUID(c.cpuid); err != nil {
		return fmt.Errorf("vCPU %d: %w", id, err)
	}
	return nil
}

// enter sets the registers the boot protocol asks for. The first vCPU starts;
// the others wait in KVM_RUN for the guest to send them INIT and SIPI.
func (v *VM) enter(start boot.Start) error {
	for _, c := range v.cpus {
		if err := c.kvm.SetMSRs(bootMSRs); err != nil {
			return err
		}
	}
	c := v.cpus[0].kvm
	sregs, err := c.Sregs()
	if err != nil {
		return err
	}
	longMode(&sregs, start)
	if err := c.SetSregs(sregs); err != nil {
		return err
	}
	return c.SetRegs(kvm.Regs{
		RIP: uint64(start.RIP), RSI: uint64(start.ZeroPage), RFLAGS: rflagsFixed,
	})
}

func (v *VM) event(e Event) {
	if e == Entered { // the others come before the trace's clock starts
		v.cpus[0].step(trace.Event, uint64(e))
	}
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
		v.slow.Wait()
		for _, w := range v.wires {
			errs = errors.Join(errs, w.close())
		}
		for _, d := range v.devices {
			errs = errors.Join(errs, d.Close())
		}
		v.console.release()
		v.serial.Close()
		if v.irq != nil {
			errs = errors.Join(errs, v.irq.close())
		}
		for _, c := range v.cpus {
			if c.counters != nil {
				errs = errors.Join(errs, c.counters.Close())
			}
			errs = errors.Join(errs, c.kvm.Close())
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
