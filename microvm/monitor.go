package microvm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/confine"
	"github.com/duplex-run/duplex/internal/jail"
	"github.com/duplex-run/duplex/internal/lean"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
)

// monitorName is argv[0] of a monitor's process.
const monitorName = "duplex-monitor"

// initialized says that Init was called, so that a process started from this
// executable becomes a monitor.
var initialized bool

// Program opens the executable of monitors. Where it is nil, or fails, a monitor is
// this executable once more, which takes longer to start: it is linked with what no
// monitor needs. See package microvm/program.
var Program func() (*os.File, error)

// Init turns a re-executed process into a microVM's monitor. In any other
// process it only notes that it was called. main must call it before anything
// else, and before anything is booted.
func Init() {
	initialized = true
	if len(os.Args) == 0 || os.Args[0] != monitorName {
		return
	}
	os.Exit(monitorMain())
}

// monitorMain is the monitor's process: it makes the machine of the setup it is
// sent, goes to jail, and runs it.
func monitorMain() int {
	_ = unix.Close(programFile)
	m := &monitor{began: workload.Now(), control: pollable(controlSocket, "control")}
	in := &receiver{f: m.control}
	var s setup
	if err := in.receive(&s); err != nil {
		fmt.Fprintln(os.Stderr, "monitor: no setup:", err)
		return workload.StatusError
	}
	exit, stats, err := m.boot(in, s)
	if m.tell(note{Kind: noteEnded, Exit: &exit, Stats: bounded(stats), Private: m.private, Failure: asFailure(err)}) != nil {
		return workload.StatusError // there is nobody to tell
	}
	return 0
}

// monitor is the state of that process.
type monitor struct {
	began   int64 // workload.Now at the start of main
	control *os.File
	send    sync.Mutex
	private int64
	shares  []*os.File // directories
}

func pollable(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	_ = unix.SetNonblock(fd, true) // or reads block a thread, which is fine too
	return os.NewFile(uintptr(fd), name)
}

func (m *monitor) tell(n note) error {
	m.send.Lock()
	defer m.send.Unlock()
	return send(m.control, n)
}

func (m *monitor) boot(in *receiver, s setup) (vmm.Exit, vmm.Stats, error) {
	// The terminal's signals are the parent's business.
	signal.Ignore(unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
	debug.SetTraceback("single")
	vcpus, _ := s.Hardware.vcpus()
	shareCPUs(vcpus)
	files, err := unpack(s.Files)
	if err != nil {
		return vmm.Exit{}, vmm.Stats{}, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	power, ask := make(chan struct{}), make(chan struct{}, 1)
	go obey(in, cancel, power, ask)
	o := m.options(s, files)
	o.Shutdown, o.Ask = power, ask
	if o.restore, err = unpackRestoring(files); err != nil {
		return vmm.Exit{}, vmm.Stats{}, err
	}
	return bootHere(ctx, s.Hardware, o)
}

// obey follows the parent's orders.
func obey(in *receiver, stop func(), power, ask chan<- struct{}) {
	for {
		var got order
		if err := in.receive(&got); err != nil {
			stop() // the parent is gone; it would also have killed this process
			return
		}
		if got.Stop {
			stop()
		}
		if got.Lean != nil {
			lean.Settle(got.Lean)
		}
		if got.Count {
			select {
			case ask <- struct{}{}:
			default: // one answer serves both
			}
		}
		if got.Power && power != nil {
			close(power)
			power = nil
		}
	}
}

// options are the ends of the parent's.
func (m *monitor) options(s setup, files unpacked) BootOptions {
	for i := range s.Hardware.Shares {
		m.shares = append(m.shares, files[numbered(fileShare, i)])
	}
	o := BootOptions{
		files: files, StatsEvery: s.StatsEvery,
		OnEvent:   func(e vmm.Event, ns int64) { _ = m.tell(note{Kind: noteEvent, Value: int(e), Ns: ns}) },
		onMark:    func(v byte, ns int64) { _ = m.tell(note{Kind: noteMark, Value: int(v), Ns: ns}) },
		connected: func() { _ = m.tell(note{Kind: noteConnected}) },
		OnAnswer:  func(st vmm.Stats) { _ = m.tell(note{Kind: noteAnswer, Stats: bounded(st)}) },
		onCost:    func(c cost) { m.private = c.private },
		confine:   func() (func() error, error) { return m.confine(s) },
		onSaved:   func() { _ = m.tell(note{Kind: noteSaved}) },
	}
	if memory, machine := files.take(fileSaveMemory), files.take(fileSave); memory != nil && machine != nil {
		o.save = newSaving(memory, machine)
	}
	if s.Steps {
		o.onStep = func(st workload.Step) { _ = m.tell(note{Kind: noteStep, Step: &st}) }
		o.onStep(workload.Step{Name: "the monitor's program starts", Ns: m.began, Process: workload.ProcessMonitor})
	}
	if s.StatsEvery > 0 {
		o.OnStats = func(st vmm.Stats) { _ = m.tell(note{Kind: noteStats, Stats: bounded(st)}) }
	}
	if f := files.take(fileSerial); f != nil {
		o.Serial = f
	}
	if f := files.take(fileSerialIn); f != nil {
		o.SerialInput = f
	}
	if f := files.take(fileConsole); f != nil {
		o.Console = f
	}
	if f := files.take(fileConsoleIn); f != nil {
		o.ConsoleInput = f
	}
	for _, p := range append(agentPorts[:len(agentPorts):len(agentPorts)], workloadPort) {
		if f := files.take(agentFile(p)); f != nil {
			if o.agent == nil {
				o.agent = streamMap{}
			}
			o.agent[p] = f
		}
	}
	return o
}

// shareCaps are what serving files of several users takes, over the ids that the
// user namespace has: nothing when the caller is not root.
const shareCaps = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID

// confine enters the jail: everything is open, and the guest has not run yet.
func (m *monitor) confine(s setup) (func() error, error) {
	c := jail.Config{Report: os.NewFile(reportPipe, "report"), Isolated: s.Isolated, MaxFiles: maxFiles(s), Saves: slices.Contains(s.Files, fileSave)}
	for i, share := range s.Hardware.Shares {
		c.Capabilities = shareCaps
		c.Shares = append(c.Shares, confine.Beneath{Dir: m.shares[i], ReadOnly: share.ReadOnly})
	}
	if f, err := rollup(); err == nil { // else the memory is not known
		rollup = func() (*os.File, error) { return f, nil }
	}
	j, err := jail.Enter(c)
	if err != nil {
		return nil, err
	}
	if err := m.tell(note{Kind: noteJailed, Layers: &j.Layers}); err != nil {
		return nil, err
	}
	if s.Steps {
		st := monitorStep("enter the jail", workload.Now())
		if err := m.tell(note{Kind: noteStep, Step: &st}); err != nil {
			return nil, err
		}
	}
	underAttack(s, jail.Monitor)
	return func() error {
		err := j.EnterVCPU()
		underAttack(s, jail.VCPU)
		return err
	}, nil
}

// underAttack is where tests try what a monitor that was taken over might, on
// a thread of each role.
var underAttack = func(setup, jail.Role) {}

// maxFiles bounds the monitor's descriptors. Of what it may still open, only
// shared files are many.
func maxFiles(s setup) uint64 {
	if len(s.Hardware.Shares) > 0 {
		return math.MaxUint64
	}
	return 4096
}

var errNoInit = errors.New("microvm.Init was not called at the start of main")
