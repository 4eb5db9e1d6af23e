package microvm

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/confine"
	"github.com/duplex-run/duplex/internal/console"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
	"github.com/duplex-run/duplex/vmm/boot"
	"github.com/duplex-run/duplex/vmm/virtio/net"
)

// machine is one microVM and the streams to its agent.
type machine struct {
	hardware    *Hardware
	options     BootOptions
	streams     streamMap          // the session's ends
	shares      []agentproto.Share // of the volumes
	network     *agentproto.Network
	console     *console.Tail
	bootTimeout time.Duration
	overdue     atomic.Bool   // ended because the agent did not come up
	connected   atomic.Bool   // the agent opened its control stream, the last one
	restored    bool          // from a snapshot, not booted
	monitor     atomic.Int64  // its process; 0 is this one
	over        chan struct{} // closed when the run is over
	session     *agentproto.Session
	pids        int64 // the limit, 0 for none
	asking      sync.Mutex
	ask         chan struct{}  // to the monitor, for an answer
	answers     chan vmm.Stats // holds one

	stats vmm.Stats // when it has ended
	cost  cost
}

// newMachine describes the machine and makes its streams. On error nothing of it
// is left.
func (r Runner) newMachine(spec workload.Spec, memory uint64, rec *workload.Recorder) (*machine, error) {
	m := &machine{
		hardware:    r.hardware(spec, memory),
		console:     &console.Tail{Also: r.Console},
		bootTimeout: cmp.Or(r.BootTimeout, DefaultBootTimeout),
		over:        make(chan struct{}),
		pids:        spec.Resources.Pids,
		ask:         make(chan struct{}),
		answers:     make(chan vmm.Stats, 1),
	}
	m.options = BootOptions{
		Serial: m.console, Trace: r.Trace, NoJail: r.NoJail, Warn: r.Warn,
		OnEvent:   func(e vmm.Event, ns int64) { rec.StampAt(eventPhase(e), ns) },
		onMark:    func(value byte, ns int64) { rec.StampAt(markPhase(value), ns) },
		onCost:    func(c cost) { m.cost = c },
		connected: func() { m.connected.Store(true) },
		onProcess: func(pid int) { m.monitor.Store(int64(pid)) },
		Ask:       m.ask,
		OnAnswer:  m.answer,
	}
	if r.Log != nil {
		m.options.onStep = rec.AddStep
	}
	var err error
	if m.hardware.Shares, m.shares, err = shareVolumes(spec.Volumes); err != nil {
		return nil, err
	}
	if r.Network != nil {
		n := *r.Network
		if n.MAC == nil {
			mac := net.RandomMAC()
			n.MAC = mac[:]
		}
		if m.network, err = n.guestNetwork(); err != nil {
			return nil, err
		}
		m.hardware.Networks = []Network{n}
	}
	if m.streams, m.options.agent, err = agentStreams(r.Talk != nil); err != nil {
		return nil, &workload.Error{Op: "make the microVM", Err: err}
	}
	if r.Talk != nil {
		r.Talk(m.streams[workloadPort])
	}
	return m, nil
}

// logCmdline makes the guest's kernel note in its log what each initcall takes, in
// a buffer that holds them all (Debian's cloud kernel writes 90 KiB), and its agent
// note its own steps there, more than the ten lines in five seconds that programs
// may write (printk.devkmsg), and send it all.
const logCmdline = "initcall_debug log_buf_len=512K printk.devkmsg=on " + agentproto.ReportKey + "=1"

func (r Runner) cmdline() string {
	line := vmm.DefaultCmdline + " " + agentproto.TransportKey + "=" + agentproto.TransportVsock
	if r.Log != nil {
		line += " " + logCmdline
	}
	if r.Cmdline != "" {
		line += " " + r.Cmdline
	}
	return line
}

// hardware is the machine for a workload.
func (r Runner) hardware(spec workload.Spec, memory uint64) *Hardware {
	h := &Hardware{
		Kernel: r.Kernel, Initrd: r.Initrd, Cmdline: r.cmdline(),
		Memory: memory, CPUs: spec.Resources.CPUs,
		Balloon: true,
	}
	if spec.Rootfs.EROFS != "" { // else the root is empty, but for the volumes
		h.Disks = []Disk{{Path: spec.Rootfs.EROFS, ID: diskID, ReadOnly: true}}
	}
	return h
}

// eventPhase is the phase of an event; a Recorder drops the phase -1.
func eventPhase(e vmm.Event) workload.Phase {
	switch e {
	case vmm.Created:
		return workload.PhaseCreated
	case vmm.Loaded:
		return workload.PhaseLoaded
	case vmm.Entered:
		return workload.PhaseEntered
	}
	return -1
}

// markPhase is the phase of a mark.
func markPhase(value byte) workload.Phase {
	switch value {
	case agentproto.MarkKernelUp, agentproto.MarkResumed:
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
	case errors.Is(err, confine.ErrCgo):
		return &workload.Error{Op: "confine the microVM's monitor", Err: err, Remedy: "Build duplex with CGO_ENABLED=0, as 'make build' does. --no-jail runs without this protection."}
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
		if e.err != nil && isOwn(e.err) {
			return e.err // there was no machine, or there is no more to say of it
		}
		err = m.whyEnded(e, err)
	case <-time.After(endGrace):
		err = fmt.Errorf("%w, and the guest still runs", err)
	}
	return m.quote(err)
}

// quote adds the end of the console to err.
func (m *machine) quote(err error) error {
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
