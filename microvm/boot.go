package microvm

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
	"github.com/duplex-run/duplex/vmm/trace"
)

// BootOptions say what a guest that somebody brings along is connected to.
type BootOptions struct {
	// Serial gets what the guest writes to its serial port, and SerialInput is
	// what it reads from there; either may be nil. A SerialInput that is not at
	// its end when the guest ends is read from once more.
	Serial      io.Writer
	SerialInput io.Reader
	// Console and ConsoleInput are the same for the virtio console, if there is
	// one.
	Console      io.Writer
	ConsoleInput io.Reader
	// NoJail leaves the monitor unconfined.
	NoJail bool
	// Trace is a file to write every exit to; "" for none. See package trace.
	Trace string
	// Shutdown asks the guest to power off when it is closed, by its power
	// button; nil for never. A guest that does not is ended by the context.
	Shutdown <-chan struct{}
	// OnStats, if set, is called every StatsEvery while the guest runs.
	OnStats    func(vmm.Stats)
	StatsEvery time.Duration
	// OnEvent, if set, is called as the machine comes up, with nanoseconds of
	// CLOCK_MONOTONIC_RAW.
	OnEvent func(vmm.Event, int64)
}

// Boot boots a machine and stays with it until the guest ends or ctx does. When
// it returns nothing of the machine is left. Its errors are *workload.Error.
func Boot(ctx context.Context, h Hardware, o BootOptions) (vmm.Exit, vmm.Stats, error) {
	exit, stats, err := bootHere(ctx, h, o)
	if err != nil && !isOwn(err) {
		err = explainNew(err)
	}
	return exit, stats, err
}

func bootHere(ctx context.Context, h Hardware, o BootOptions) (_ vmm.Exit, _ vmm.Stats, err error) {
	if err := h.validate(); err != nil {
		return vmm.Exit{}, vmm.Stats{}, err
	}
	w, err := createTrace(o.Trace)
	if err != nil {
		return vmm.Exit{}, vmm.Stats{}, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	devices, err := h.open(o)
	if err != nil {
		return vmm.Exit{}, vmm.Stats{}, err
	}
	cpus, limit := h.vcpus()
	vm, err := vmm.New(vmm.Config{
		Kernel: h.Kernel, Initrd: h.Initrd, Cmdline: h.Cmdline, Memory: h.Memory,
		CPUs: cpus, CPULimit: limit, Console: o.Serial, Devices: devices, Trace: w, OnEvent: o.OnEvent,
	})
	if err != nil {
		return vmm.Exit{}, vmm.Stats{}, errors.Join(err, closeAll(devices))
	}
	defer func() { err = errors.Join(err, vm.Close()) }()
	stop := o.attend(vm)
	exit, err := vm.Run(ctx)
	stop()
	return exit, vm.Stats(), err
}

// attend serves the machine from outside until what it returns is called.
func (o *BootOptions) attend(vm *vmm.VM) (stop func()) {
	done := make(chan struct{})
	if o.SerialInput != nil {
		go func() { // ends with the input, or once the VM is closed
			buf := make([]byte, 1024)
			for {
				n, err := o.SerialInput.Read(buf)
				if _, werr := vm.Input(buf[:n]); err != nil || werr != nil {
					return
				}
			}
		}()
	}
	go func() {
		var tick <-chan time.Time
		if o.OnStats != nil && o.StatsEvery > 0 {
			t := time.NewTicker(o.StatsEvery)
			defer t.Stop()
			tick = t.C
		}
		shutdown := o.Shutdown
		for {
			select {
			case <-shutdown:
				shutdown = nil
				_ = vm.PowerButton() // a guest that has ended needs it no more
			case <-tick:
				s := vm.Stats()
				s.Resident = vm.Resident()
				o.OnStats(s)
			case <-done:
				close(done)
				return
			}
		}
	}()
	return func() { done <- struct{}{}; <-done }
}

func createTrace(path string) (*trace.Writer, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, &workload.Error{Op: "make the trace file", Err: err}
	}
	return trace.NewWriter(f, trace.Header{}), nil
}
