package microvm

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/console"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
	"github.com/duplex-run/duplex/vmm/boot"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

// guestCID is every guest's: the socket device's host side is in this process,
// so machines do not see each other.
const guestCID = 3

// machine is one microVM and the streams to its agent.
type machine struct {
	vm          *vmm.VM
	sockets     *vsock.Device
	streams     map[agentproto.Port]*stream
	shares      []agentproto.Share // of the volumes
	console     *console.Tail
	bootTimeout time.Duration
	overdue     atomic.Bool   // ended because the agent did not come up
	down        chan struct{} // vm.Run has returned
}

// newMachine makes the machine, loaded and not yet running. On error nothing of
// it is left.
func (r Runner) newMachine(spec workload.Spec, memory uint64, rec *workload.Recorder) (*machine, error) {
	m := &machine{
		console:     &console.Tail{Also: r.Console},
		bootTimeout: cmp.Or(r.BootTimeout, DefaultBootTimeout),
		down:        make(chan struct{}),
	}
	h := r.hardware(spec, memory)
	var err error
	if h.Shares, m.shares, err = shareVolumes(spec.Volumes); err != nil {
		return nil, err
	}
	if err := h.validate(); err != nil {
		return nil, err
	}
	devices, err := m.devices(h)
	if err != nil {
		return nil, err
	}
	cpus, limit := h.vcpus()
	m.vm, err = vmm.New(vmm.Config{
		Kernel: h.Kernel, Initrd: h.Initrd, Cmdline: h.Cmdline,
		Memory: h.Memory, CPUs: cpus, CPULimit: limit, Console: m.console, Devices: devices,
		OnMark:  func(value byte, ns int64) { rec.StampAt(markPhase(value), ns) },
		OnEvent: func(e vmm.Event, ns int64) { rec.StampAt(eventPhases[e], ns) },
	})
	if err != nil {
		return nil, explainNew(errors.Join(err, closeAll(devices)))
	}
	return m, nil
}

func (r Runner) cmdline() string {
	line := vmm.DefaultCmdline + " " + agentproto.TransportKey + "=" + agentproto.TransportVsock
	if r.Cmdline != "" {
		line += " " + r.Cmdline
	}
	return line
}

// hardware is the machine for a workload.
func (r Runner) hardware(spec workload.Spec, memory uint64) *Hardware {
	return &Hardware{
		Kernel: r.Kernel, Initrd: r.Initrd, Cmdline: r.cmdline(),
		Memory: memory, CPUs: spec.Resources.CPUs,
		Disks: []Disk{{Path: spec.Rootfs.EROFS, ID: diskID, ReadOnly: true}},
	}
}

// devices makes the hardware's devices and the one for the agent's streams.
func (m *machine) devices(h *Hardware) ([]virtio.Device, error) {
	var err error
	if m.sockets, err = vsock.New(guestCID); err != nil {
		return nil, &workload.Error{Op: "make the microVM", Err: err}
	}
	if m.streams, err = listen(m.sockets); err != nil {
		return nil, &workload.Error{Op: "make the microVM", Err: errors.Join(err, m.sockets.Close())}
	}
	devices, err := h.open(BootOptions{})
	if err != nil {
		return nil, errors.Join(err, m.sockets.Close())
	}
	return append(devices, m.sockets), nil
}

// connected says whether the agent opened its control stream, the last one.
func (m *machine) connected() bool { return m.streams[agentproto.Control].connected.Load() }

// hangUp ends the streams of a machine that runs no more; what it sent before
// can still be read.
func (m *machine) hangUp() {
	_ = m.sockets.Close() // cannot fail
	close(m.down)
}

// close releases everything. Precondition: run has returned.
func (m *machine) close() error { return m.vm.Close() }

var eventPhases = map[vmm.Event]workload.Phase{
	vmm.Created: workload.PhaseCreated,
	vmm.Loaded:  workload.PhaseLoaded,
	vmm.Entered: workload.PhaseEntered,
}

// markPhase is the phase of a mark; a Recorder drops the phase -1.
func markPhase(value byte) workload.Phase {
	switch value {
	case agentproto.MarkKernelUp:
		return workload.PhaseKernelUp
	case agentproto.MarkWorkload:
		return workload.PhaseWorkload
	}
	return -1
}

// explainNew says what is wrong with the machine asked for, and what to do.
func explainNew(err error) error {
	var kvm *vmm.KVMError
	switch {
	case errors.As(err, &kvm):
		return &workload.Error{Op: "make the microVM", Err: err, Remedy: kvm.Remedy}
	case errors.Is(err, boot.ErrMemoryTooSmall):
		return &workload.Error{Op: "make the microVM", Err: err, Remedy: "Give it more with --memory."}
	case errors.Is(err, boot.ErrNotKernel):
		return &workload.Error{Op: "make the microVM", Err: err, Remedy: "Give --kernel a bzImage or vmlinux file, or a name of 'duplex kernel ls'."}
	case errors.Is(err, os.ErrNotExist):
		return &workload.Error{Op: "make the microVM", Err: err, Remedy: "Run 'duplex kernel fetch' to get a guest kernel."}
	}
	return &workload.Error{Op: "make the microVM", Err: err}
}

// endGrace is how long a guest whose agent is gone may take to end its machine:
// a panic is printed after the streams broke.
const endGrace = 5 * time.Second

// consoleLines is how much of the console an error quotes.
const consoleLines = 12

// explain says why the session failed: how the machine ended, if it did, and
// what its console says.
func (m *machine) explain(err error, ended <-chan ending) error {
	select {
	case e := <-ended:
		err = m.whyEnded(e, err)
	case <-time.After(endGrace):
		err = fmt.Errorf("%w, and the guest still runs", err)
	}
	if lines := console.Lines(m.console.String(), consoleLines); len(lines) > 0 {
		err = fmt.Errorf("%w\nThe guest's console ended with:\n  %s", err, strings.Join(lines, "\n  "))
	}
	return &workload.Error{Op: "run the microVM", Err: err}
}

func (m *machine) whyEnded(e ending, err error) error {
	if line := console.Panic(m.console.String()); line != "" {
		return errors.New(line)
	}
	switch {
	case m.overdue.Load():
		return fmt.Errorf("the guest's agent did not come up within %v", m.bootTimeout)
	case e.err != nil:
		return e.err
	}
	switch e.exit.Reason {
	case vmm.PowerOff:
		return errors.New("the guest powered off before its workload ended")
	case vmm.Reset:
		return errors.New("the guest restarted before its workload ended")
	case vmm.TripleFault:
		return errors.New("the guest's CPU shut down (triple fault)")
	case vmm.Canceled:
		return err
	}
	return fmt.Errorf("the machine ended: %v", e.exit)
}
