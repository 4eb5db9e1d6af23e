package vmm

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/duplex-run/duplex/vmm/acpi"
	"github.com/duplex-run/duplex/vmm/boot"
	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/trace"
	"github.com/duplex-run/duplex/vmm/virtio"
)

// MaxDevices is how many virtio devices a VM takes: each has an I/O APIC pin of
// its own, from firstGSI on.
const MaxDevices = 24 - firstGSI

// Config is a machine to make. New checks it before it opens /dev/kvm.
type Config struct {
	// Kernel is the path of a bzImage or of an ELF vmlinux.
	Kernel string
	// Initrd is the path of an initial RAM disk, "" for none.
	Initrd string
	// KernelFile and InitrdFile, if set, are the open files; the paths then only
	// serve messages. New closes them.
	KernelFile, InitrdFile *os.File
	// Cmdline is the kernel command line; see DefaultCmdline.
	Cmdline string
	// Memory is the guest's, in bytes: a multiple of 4096.
	Memory uint64
	// CPUs is the number of vCPUs, 1 to MaxCPUs, with APIC ids from 0.
	CPUs int
	// CPULimit is how much processor time the vCPUs may use together, in
	// processors: 1.5 is 150 ms in each 100 ms period; 0 is no limit. The time
	// of devices does not count.
	CPULimit float64
	// Console gets what the guest writes to its serial port, from a goroutine
	// of the VM's; nil discards it. A Console that blocks stops the guest once
	// 64 KiB wait for it.
	Console io.Writer
	// Devices belong to the VM once New has succeeded, and are closed with it.
	Devices []virtio.Device
	// Slots are places behind the Devices where the guest finds nothing now, and a
	// VM that is restored from this one may have further devices: the guest's driver
	// finds them when it is bound to the place anew.
	Slots int
	// OnMark, if set, is called for each byte the guest writes to the marks
	// port, on the vCPU's goroutine. ns is CLOCK_MONOTONIC_RAW at the exit.
	OnMark func(value byte, ns int64)
	// OnEvent, if set, is called as the machine comes up; ns as for OnMark.
	OnEvent func(e Event, ns int64)
	// EnterVCPU, if set, is called on each vCPU's thread, which runs nothing else
	// before or after, right before it enters the guest for the first time. Its
	// error ends the run.
	EnterVCPU func() error
	// Count keeps KVM's own counts of each vCPU open for VM.Counts, where the
	// kernel has them.
	Count bool
	// Trace, if set, gets every exit. It is closed by whoever made it, after Run.
	Trace *trace.Writer
}

// MaxCPUs is how many vCPUs a VM takes: an APIC id is a byte, and 255 addresses
// all of them.
const MaxCPUs = 255

// Event is a step of the machine's way up.
type Event int

// The events, in the order they come.
const (
	Created Event = iota // the VM and its vCPU exist
	Loaded               // memory, kernel and initrd are in place
	Entered              // KVM_RUN is about to be called for the first time
)

// ErrConfig is wrapped by New's errors about numbers in a Config that are out
// of range. Those about the kernel, the initrd and the command line wrap
// boot.ErrNotKernel, boot.ErrMemoryTooSmall or boot.ErrCmdline, or are
// *os.PathErrors.
var ErrConfig = errors.New("bad machine configuration")

// input is the files of a Config, opened, and how they will be arranged.
type input struct {
	kernel, initrd *os.File
	layout         *boot.Layout
}

// open checks the Config and opens its files, without touching KVM.
func (c *Config) open() (_ *input, err error) {
	in := &input{kernel: c.KernelFile, initrd: c.InitrdFile}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.close())
		}
	}()
	if err := c.check(); err != nil {
		return nil, err
	}
	var kernelSize, initrdSize int64
	if in.kernel, kernelSize, err = openFile(c.KernelFile, c.Kernel); err != nil {
		return nil, fmt.Errorf("open the kernel: %w", err)
	}
	if c.Initrd != "" || c.InitrdFile != nil {
		if in.initrd, initrdSize, err = openFile(c.InitrdFile, c.Initrd); err != nil {
			return nil, fmt.Errorf("open the initrd: %w", err)
		}
	}
	k, err := boot.Parse(in.kernel, kernelSize)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", c.Kernel, err)
	}
	in.layout, err = k.Plan(boot.Input{
		Memory: c.Memory, InitrdSize: uint64(initrdSize), Cmdline: c.Cmdline, RSDP: acpi.Base,
	})
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", c.Kernel, err)
	}
	return in, nil
}

// check checks the numbers.
func (c *Config) check() error {
	switch {
	case c.CPUs < 1 || c.CPUs > MaxCPUs:
		return fmt.Errorf("%w: %d CPUs, 1 to %d are possible", ErrConfig, c.CPUs, MaxCPUs)
	case c.CPULimit < 0 || c.CPULimit > float64(c.CPUs) || c.CPULimit != c.CPULimit:
		return fmt.Errorf("%w: a limit of %v CPUs for %d", ErrConfig, c.CPULimit, c.CPUs)
	case c.Memory == 0 || c.Memory%4096 != 0 || c.Memory > memory.MaxSize:
		return fmt.Errorf("%w: %d bytes of memory is not a multiple of 4096 up to %d", ErrConfig, c.Memory, memory.MaxSize)
	case c.Slots < 0 || len(c.Devices) > MaxDevices-c.Slots:
		return fmt.Errorf("%w: %d devices and %d slots, at most %d fit", ErrConfig, len(c.Devices), c.Slots, MaxDevices)
	}
	return nil
}

// openFile opens path, unless f is that already. After an error f is closed.
func openFile(f *os.File, path string) (*os.File, int64, error) {
	if f == nil {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, 0, err
		}
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func (in *input) close() error {
	var errs error
	for _, f := range []*os.File{in.kernel, in.initrd} {
		if f != nil {
			errs = errors.Join(errs, f.Close())
		}
	}
	return errs
}

// load puts the files into guest memory.
func (in *input) load(mem *memory.Memory) (boot.Start, error) {
	if in.initrd == nil { // not a nil *os.File in an io.ReaderAt
		return in.layout.Load(mem, in.kernel, nil)
	}
	return in.layout.Load(mem, in.kernel, in.initrd)
}
