package microvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/duplex-run/duplex/internal/confine"
	"github.com/duplex-run/duplex/internal/console"
	"github.com/duplex-run/duplex/internal/jail"
	"github.com/duplex-run/duplex/internal/lean"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
)

// maxStepName bounds the name of a monitor's step, in bytes.
const maxStepName = 64

// stopGrace is how long a monitor that was told to stop may take: it needs less
// than 100 ms, unless the host is emulated. One that was taken over is killed.
const stopGrace = 2 * time.Second

// process is a monitor in a process of its own, seen from its parent.
type process struct {
	o       *BootOptions
	control *os.File
	report  *os.File
	program *os.File // the monitor's executable
	stderr  console.Tail
	cmd     *exec.Cmd
	waited  chan struct{} // cmd.Wait has returned
	copies  sync.WaitGroup
	ended   *note // the monitor's last words
}

// bootJailed makes and runs the machine in a process of its own, which is
// confined before the guest's first instruction. This process keeps the user's
// terminal, network and files; what the monitor needs of them it gets as open
// descriptors.
func bootJailed(ctx context.Context, h Hardware, o BootOptions) (vmm.Exit, vmm.Stats, error) {
	files := &parcel{}
	for p, f := range o.agent {
		files.add(agentFile(p), f)
	}
	if o.networks != nil {
		o.networks.hand(files.add)
	}
	p := &process{o: &o, waited: make(chan struct{})}
	var err error
	if h.Vsock != "" {
		var sockets io.Closer
		if sockets, err = listenVsock(h.Vsock, files); err != nil {
			err = &workload.Error{Op: "bridge the guest's sockets", Err: err}
		} else {
			defer func() { _ = sockets.Close() }() // removes the socket
		}
	}
	if err == nil {
		err = p.start(&h, files)
	}
	if err = errors.Join(err, files.close()); err != nil {
		p.kill()
		return vmm.Exit{}, vmm.Stats{}, errors.Join(err, p.close())
	}
	p.follow(ctx)
	<-p.waited
	p.drain(ctx)
	exit, stats, err := p.result()
	return exit, stats, errors.Join(err, p.close())
}

// start starts the monitor and sends it what to do.
func (p *process) start(h *Hardware, files *parcel) error {
	if !initialized {
		return errNoInit
	}
	if err := files.pack(h); err != nil {
		return err
	}
	if err := p.connect(files); err != nil {
		return err
	}
	if err := p.snapshots(files); err != nil {
		return err
	}
	isolated, err := p.spawn(files, identity(h))
	if err != nil {
		return fmt.Errorf("start the monitor: %w", err)
	}
	if p.o.onProcess != nil {
		p.o.onProcess(p.cmd.Process.Pid)
	}
	if p.o.onStep != nil {
		p.o.onStep(workload.Step{Name: "start the monitor", Ns: workload.Now(), Process: workload.ProcessDuplex, Faults: workload.OwnFaults()})
	}
	return send(p.control, setup{Hardware: *h, Files: files.names, Isolated: isolated, StatsEvery: p.statsEvery(), Steps: p.o.onStep != nil})
}

func (p *process) statsEvery() time.Duration {
	if p.o.OnStats == nil {
		return 0
	}
	return p.o.StatsEvery
}

// connect makes pipes for what is not a file of the host.
func (p *process) connect(files *parcel) error {
	if p.o.Trace != "" {
		f, err := os.Create(p.o.Trace)
		if err != nil {
			return &workload.Error{Op: "make the trace file", Err: err}
		}
		files.add(fileTrace, f)
	}
	for name, out := range map[string]io.Writer{fileSerial: p.o.Serial, fileConsole: p.o.Console} {
		if out == nil {
			continue
		}
		r, err := files.pipe(name, true)
		if err != nil {
			return err
		}
		p.copies.Go(func() {
			_, _ = io.Copy(out, r) // to the end of the monitor, or until nobody listens
			_ = r.Close()
		})
	}
	for name, in := range map[string]io.Reader{fileSerialIn: p.o.SerialInput, fileConsoleIn: p.o.ConsoleInput} {
		if in == nil {
			continue
		}
		w, err := files.pipe(name, false)
		if err != nil {
			return err
		}
		go func() { // may outlive the run by one read
			_, _ = io.Copy(w, in)
			_ = w.Close()
		}()
	}
	return nil
}

// snapshots packs what the machine is restored from or saved to.
func (p *process) snapshots(files *parcel) error {
	if p.o.restore != nil {
		if err := p.o.restore.pack(files); err != nil {
			return err
		}
	}
	if p.o.save == nil {
		return nil
	}
	for name, f := range map[string]*os.File{fileSaveMemory: p.o.save.memory, fileSave: p.o.save.machine} {
		d, err := duplicate(f)
		if err != nil {
			return err
		}
		files.add(name, d)
	}
	return nil
}

// identity is who the monitor is: root's shares hold files of everybody.
func identity(h *Hardware) confine.Identity {
	if len(h.Shares) > 0 && os.Geteuid() == 0 {
		return confine.Everyone
	}
	return confine.Caller
}

func (p *process) kill() {
	if p.cmd != nil && p.cmd.Process != nil {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.waited
	}
	p.copies.Wait()
}

// drain waits until what the monitor left in its pipes is passed on; once ctx has
// ended, not for a writer that blocks.
func (p *process) drain(ctx context.Context) {
	done := make(chan struct{})
	go func() { p.copies.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		select {
		case <-done:
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (p *process) close() error {
	var errs error
	for _, f := range []*os.File{p.control, p.report, p.program} {
		if f != nil {
			errs = errors.Join(errs, f.Close())
		}
	}
	return errs
}

// follow listens to the monitor until it has ended.
func (p *process) follow(ctx context.Context) {
	done := make(chan struct{})
	defer close(done)
	stop := context.AfterFunc(ctx, func() {
		_ = send(p.control, order{Stop: true})
		select {
		case <-p.waited:
		case <-time.After(stopGrace):
			_ = p.cmd.Process.Kill() // it may have ended
		}
	})
	defer stop()
	defer time.AfterFunc(startTime, p.settle).Stop()
	go p.passOn(done)
	in := &receiver{f: p.control}
	for {
		n := note{}
		if err := in.receive(&n); err != nil {
			if !errors.Is(err, io.EOF) {
				_ = p.cmd.Process.Kill() // it talks nonsense
			}
			return
		}
		p.note(n)
	}
}

// passOn sends the monitor what comes from outside, until done is closed. One that
// has ended needs none of it.
func (p *process) passOn(done <-chan struct{}) {
	shutdown := p.o.Shutdown
	for {
		select {
		case <-shutdown:
			shutdown = nil
			_ = send(p.control, order{Power: true})
		case <-p.o.Ask:
			_ = send(p.control, order{Count: true})
		case <-done:
			return
		}
	}
}

// startTime is when a machine that still runs has started for good, and most of
// what its processes have in memory is of no more use.
const startTime = 2 * time.Second

// settle gives memory of both processes back.
func (p *process) settle() {
	program := lean.Program(p.program)
	if program == nil {
		program = []lean.Pages{}
	}
	_ = send(p.control, order{Lean: program}) // a monitor that has ended needs none
	if self, err := openSelf(); err == nil {
		program = lean.Program(self)
		_ = self.Close()
	}
	lean.Settle(program)
}

// note acts on a message. Nothing in it is trusted.
func (p *process) note(n note) {
	switch {
	case n.Kind == noteEvent && p.o.OnEvent != nil:
		p.o.OnEvent(vmm.Event(n.Value), n.Ns)
	case n.Kind == noteMark && p.o.onMark != nil:
		p.o.onMark(byte(n.Value), n.Ns)
	case n.Kind == noteStep && n.Step != nil && p.o.onStep != nil:
		n.Step.Name, n.Step.Process = console.Printable(n.Step.Name[:min(len(n.Step.Name), maxStepName)]), workload.ProcessMonitor
		p.o.onStep(*n.Step)
	case n.Kind == noteConnected && p.o.connected != nil:
		p.o.connected()
	case n.Kind == noteSaved && p.o.onSaved != nil:
		p.o.onSaved()
	case n.Kind == noteStats && n.Stats != nil && p.o.OnStats != nil:
		p.o.OnStats(*n.Stats)
	case n.Kind == noteAnswer && n.Stats != nil && p.o.OnAnswer != nil:
		p.o.OnAnswer(*n.Stats)
	case n.Kind == noteJailed && n.Layers != nil && p.o.Warn != nil:
		for _, missing := range n.Layers.Missing() {
			p.o.Warn("the monitor's jail has " + missing)
		}
	case n.Kind == noteEnded && p.ended == nil:
		p.ended = &n
	}
}

// result is what the monitor said last, or why it could not. Precondition: it has
// ended.
func (p *process) result() (vmm.Exit, vmm.Stats, error) {
	state := p.cmd.ProcessState
	c := cost{}
	if ru, ok := state.SysUsage().(*syscall.Rusage); ok {
		c.cpu = ru.Utime.Nano() + ru.Stime.Nano()
	}
	defer func() {
		if p.o.onCost != nil {
			p.o.onCost(c)
		}
	}()
	denied, err := jail.ReadDenial(p.report)
	if err != nil || denied != nil {
		if denied != nil {
			err = denied
		}
		return vmm.Exit{}, vmm.Stats{}, &workload.Error{
			Op: "run the microVM's monitor", Err: err,
			Remedy: "The guest attacked the monitor, or this is a bug of duplex: please report it. --no-jail runs without this protection.",
		}
	}
	n := p.ended
	if n == nil || n.Exit == nil || n.Stats == nil {
		return vmm.Exit{}, vmm.Stats{}, &workload.Error{Op: "run the microVM's monitor", Err: p.lastWords(state)}
	}
	c.private = n.Private
	n.Exit.Detail = console.Printable(n.Exit.Detail)
	return *n.Exit, *n.Stats, n.Failure.error()
}

// lastWords says how a monitor ended that did not.
func (p *process) lastWords(state *os.ProcessState) error {
	err := fmt.Errorf("it ended with %v", state)
	// A panic's text comes before its stack.
	lines := strings.Split(strings.TrimSpace(p.stderr.String()), "\n")
	for _, line := range lines[:min(len(lines), 4)] {
		if line = console.Printable(line); line != "" {
			err = fmt.Errorf("%w\n  %s", err, line)
		}
	}
	return err
}
