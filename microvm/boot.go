package microvm

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/duplex-run/duplex/internal/agentproto"
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
	// NoJail runs the monitor in this process, unconfined: a guest that takes it
	// over has everything that the caller has.
	NoJail bool
	// Warn is told what this host lacks for the jail; nil discards it.
	Warn func(string)
	// Trace is a file to write every exit to; "" for none. See package trace.
	Trace string
	// Shutdown asks the guest to power off when it is closed, by its power
	// button; nil for never. A guest that does not is ended by the context.
	Shutdown <-chan struct{}
	// OnStats, if set, is called every StatsEvery while the guest runs.
	OnStats    func(vmm.Stats)
	StatsEvery time.Duration
	// Ask has OnAnswer called with what the machine has cost so far, without
	// Resident; both nil for never.
	Ask      <-chan struct{}
	OnAnswer func(vmm.Stats)
	// OnEvent, if set, is called as the machine comes up, with nanoseconds of
	// CLOCK_MONOTONIC_RAW.
	OnEvent func(vmm.Event, int64)

	agent     streamMap // streams to connect the agent with
	connected func()    // the agent's control stream is there
	onMark    func(value byte, ns int64)
	onStep    func(workload.Step)      // finer than events and marks, for a report
	counts    func() map[string]uint64 // KVM's, of the machine
	onCost    func(cost)
	onProcess func(pid int)                // the monitor's own has started
	files     unpacked                     // opened by the parent
	save      *saving                      // save the machine when its agent asks for it
	onSaved   func()                       // it was
	restore   *restoring                   // restore a machine instead of booting one
	networks  *networks                    // of this process
	confine   func() (func() error, error) // right before the guest starts
}

// cost is what a monitor took beside the guest's memory.
type cost struct {
	cpu     int64 // of its own process, in nanoseconds; 0 when it has none
	private int64 // bytes; 0 where the kernel cannot tell
}

// Boot boots a machine and stays with it until the guest ends or ctx does. When
// it returns nothing of the machine is left. Its errors are *workload.Error.
func Boot(ctx context.Context, h Hardware, o BootOptions) (vmm.Exit, vmm.Stats, error) {
	run := bootJailed
	if o.NoJail {
		run = bootHere
	}
	if len(h.Shares) > 0 {
		raiseFiles()
	}
	exit, stats, err := withNetworks(ctx, h, o, run)
	if err != nil && !isOwn(err) {
		err = explainNew(err)
	}
	return exit, stats, err
}

// withNetworks checks the machine and runs it with its user-mode networks.
func withNetworks(ctx context.Context, h Hardware, o BootOptions, run func(context.Context, Hardware, BootOptions) (vmm.Exit, vmm.Stats, error)) (vmm.Exit, vmm.Stats, error) {
	var n *networks
	err := h.validate()
	if err == nil {
		n, err = h.startNetworks()
	}
	if err != nil {
		return vmm.Exit{}, vmm.Stats{}, errors.Join(err, closeStreams(o.agent))
	}
	o.networks = n
	exit, stats, err := run(ctx, h, o)
	return exit, stats, errors.Join(err, n.close())
}

// bootHere makes and runs the machine in this process.
func bootHere(ctx context.Context, h Hardware, o BootOptions) (_ vmm.Exit, _ vmm.Stats, err error) {
	var agent *bridge
	defer func() {
		if agent != nil {
			err = errors.Join(err, agent.close())
		} else {
			err = errors.Join(err, closeStreams(o.agent))
		}
	}()
	if o.networks != nil {
		o.files = unpacked{}
		o.networks.hand(func(name string, f *os.File) { o.files[name] = f })
	}
	w, err := createTrace(o.files.take(fileTrace), o.Trace)
	if err != nil {
		return vmm.Exit{}, vmm.Stats{}, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	var devices deviceList
	if err = devices.open(&h, o); err == nil && o.agent != nil {
		streams := o.agent
		o.agent = nil // newBridge's
		if agent, err = newBridge(streams, o.connected); err == nil {
			devices = append(devices, agent.device)
		}
	}
	if err == nil && h.Vsock != "" {
		var bridge io.Closer
		if bridge, err = devices.openVsock(&h, o); err == nil {
			defer func() { _ = bridge.Close() }() // again, if the device did
		}
	}
	if err == nil {
		err = devices.plug(&h, o)
	}
	if err != nil {
		return vmm.Exit{}, vmm.Stats{}, errors.Join(err, devices.close())
	}
	enter := func() error { return nil }
	cpus, limit := h.vcpus()
	cfg := vmm.Config{
		Kernel: h.Kernel, KernelFile: o.files.take(fileKernel), Initrd: h.Initrd, InitrdFile: o.files.take(fileInitrd),
		Cmdline: h.Cmdline, Memory: h.Memory, CPUs: cpus, CPULimit: limit, Console: o.Serial, Devices: devices, Slots: h.Slots,
		Trace: w, OnEvent: o.event, OnMark: o.mark, EnterVCPU: func() error { return enter() },
		Count: o.onStep != nil,
	}
	vm, err := o.build(cfg)
	if err != nil {
		return vmm.Exit{}, vmm.Stats{}, errors.Join(err, devices.close())
	}
	defer func() { err = errors.Join(err, vm.Close()) }()
	o.counts = vm.Counts
	if o.confine != nil {
		if enter, err = o.confine(); err != nil {
			return vmm.Exit{}, vmm.Stats{}, err
		}
	}
	stop := o.attend(vm)
	exit, err := o.run(ctx, vm)
	stop()
	stats := vm.Stats()
	if o.onCost != nil {
		o.onCost(cost{private: ownMemory(int64(stats.Resident))})
	}
	if agent != nil { // the guest says no more: what it said can still be read
		err = errors.Join(err, agent.close())
	}
	return exit, stats, err
}

// build makes the VM: new, or restored.
func (o *BootOptions) build(cfg vmm.Config) (*vmm.VM, error) {
	if o.save != nil {
		o.save.listen(&cfg)
	}
	if o.restore != nil {
		return o.restore.restore(cfg)
	}
	vm, err := vmm.New(cfg)
	if o.save != nil {
		o.save.vm = vm
	}
	return vm, err
}

func (o *BootOptions) run(ctx context.Context, vm *vmm.VM) (vmm.Exit, error) {
	if o.save == nil {
		return vm.Run(ctx)
	}
	exit, saved, err := o.save.run(ctx)
	if saved && err == nil && o.onSaved != nil {
		o.onSaved()
	}
	return exit, err
}

// event passes on what the machine says of its way up, and mark what the guest does.
// The step comes first: it is not to hold what passing on costs.
func (o *BootOptions) event(e vmm.Event, ns int64) {
	o.step(eventPhase(e).String(), ns)
	if o.OnEvent != nil {
		o.OnEvent(e, ns)
	}
}

func (o *BootOptions) mark(value byte, ns int64) {
	if value == agentproto.MarkStep {
		o.step(workload.StepMark, ns)
	} else {
		o.step(markPhase(value).String(), ns)
	}
	if o.onMark != nil {
		o.onMark(value, ns)
	}
}

func monitorStep(name string, ns int64) workload.Step {
	return workload.Step{Name: name, Ns: ns, Process: workload.ProcessMonitor, Faults: workload.OwnFaults()}
}

// step tells whoever wants to know that the machine came this far, and what it had
// cost by then: the vCPU that got there waits.
func (o *BootOptions) step(name string, ns int64) {
	if o.onStep == nil {
		return
	}
	st := monitorStep(name, ns)
	if o.counts != nil {
		done := make(chan map[string]uint64)
		go func() { done <- o.counts() }() // a vCPU's thread may not read
		n := <-done
		st.KVM = workload.KVM{
			Exits: int64(n["exits"]), Halts: int64(n["halt_exits"]),
			IdleNs:       int64(n["halt_wait_ns"] + n["halt_poll_success_ns"] + n["halt_poll_fail_ns"]),
			MemoryFaults: int64(n["pf_fixed"]), Interrupts: int64(n["irq_exits"]), Emulated: int64(n["insn_emulation"]),
		}
	}
	o.onStep(st)
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
			case <-o.Ask:
				o.OnAnswer(vm.Stats())
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

// createTrace traces to f, or to a new file.
func createTrace(f *os.File, path string) (*trace.Writer, error) {
	if f == nil && path == "" {
		return nil, nil
	}
	if f == nil {
		var err error
		if f, err = os.Create(path); err != nil {
			return nil, &workload.Error{Op: "make the trace file", Err: err}
		}
	}
	return trace.NewWriter(f, trace.Header{}), nil
}
