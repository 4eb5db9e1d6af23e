package runcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/runs"
	"github.com/duplex-run/duplex/internal/workload"
)

// Tracked is a run that other duplex processes see and act on: package runs.
type Tracked struct {
	record runs.Record
	target runs.Target
	// report is where the process that detached this one waits for the start.
	report *os.File
	warn   func(string)

	mu     sync.Mutex
	own    *runs.Own
	server *runs.Server
	later  *time.Timer // makes own
	over   bool
}

// trackDelay is how long a run in the foreground takes before it shows: making it
// known takes time that a short run should not cost. One with a name shows at once.
const trackDelay = 30 * time.Millisecond

// track prepares the tracking of a run that this process makes.
func (f *Flags) track(a *App, iso workload.Isolation, image string) (*Tracked, error) {
	if f.reportFD > 0 || f.probe || f.BootLog != "" {
		return nil, nil // compare's and boot-report's, which measure
	}
	t := &Tracked{warn: a.Warn, record: runs.Record{
		ID: f.ID, Name: f.Name, Isolation: iso, Image: image, TTY: f.TTY, Interactive: f.Interactive,
		Detached: f.detached > 0, PID: os.Getpid(), Created: time.Now(),
	}}
	if f.detached > 0 {
		return t, t.adopt(f)
	}
	if f.Name == "" && !f.idGiven {
		return t, nil
	}
	var err error
	t.own, err = runs.Create(t.record)
	return t, err
}

// adopt takes the run over from the process that was started by the user. What it
// hands over is at the descriptors from detached on: the lock, the report.
func (t *Tracked) adopt(f *Flags) error {
	for fd := f.detached; fd < f.detached+2; fd++ {
		unix.CloseOnExec(fd)
	}
	t.report = os.NewFile(uintptr(f.detached+1), "report")
	var err error
	if t.own, err = runs.Adopt(f.ID, os.NewFile(uintptr(f.detached), "lock")); err == nil {
		t.record = t.own.Record()
	}
	return err
}

// describe says what the run is, now that it is known.
func (t *Tracked) describe(spec workload.Spec, user func(string) (workload.User, error)) error {
	if t == nil {
		return nil
	}
	spec.Extra = nil
	t.target.Spec, t.target.User = spec, user
	return t.update(func(r *runs.Record) { r.Argv, r.Resources = spec.Argv, spec.Resources })
}

// InLab says that the run is in the lab machine, and who there has it.
func (t *Tracked) InLab(there runs.Forward, argv []string) error {
	if t == nil {
		return nil
	}
	t.target.Forward = there
	return t.update(func(r *runs.Record) { r.Lab, r.Argv = true, argv })
}

func (t *Tracked) update(change func(*runs.Record)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.record)
	return t.own.Update(change)
}

// begin connects the session of the run.
func (t *Tracked) begin(se *Session, interactive bool) error {
	if t == nil {
		return nil
	}
	t.target.Signal = func(sig workload.Signal) {
		select {
		case se.send <- sig:
		case <-se.Ctx.Done():
		}
	}
	if t.record.Detached {
		hub, err := t.own.NewHub(interactive, &se.Stdio)
		if err != nil {
			return err
		}
		t.target.Hub = hub
	}
	if t.own != nil {
		if err := t.serve(); err != nil {
			return err
		}
	}
	se.Stdio.Running = t.running
	return nil
}

func (t *Tracked) serve() (err error) {
	t.server, err = t.own.Serve(t.target)
	return err
}

// running is called when the workload runs.
func (t *Tracked) running(c workload.Controller) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.record.Started = time.Now()
	if t.own == nil {
		if !t.over {
			t.later = time.AfterFunc(trackDelay, func() { t.appear(c) })
		}
		return
	}
	t.server.Running(c)
	if err := t.own.Update(func(r *runs.Record) { r.Started = t.record.Started }); err != nil {
		t.warn(err.Error())
	}
	t.tell(outcome{})
}

// appear makes a run in the foreground known.
func (t *Tracked) appear(c workload.Controller) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	var err error
	if t.own, err = runs.Create(t.record); err == nil {
		if err = t.serve(); err == nil {
			t.server.Running(c)
			return
		}
		err = errors.Join(err, t.own.Discard())
		t.own = nil
	}
	t.warn(fmt.Sprintf("other commands do not see this run: %v", err))
}

// end ends the tracking of a run that has ended, or was not begun.
func (t *Tracked) end(exit workload.Exit, failure error) {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.over = true
	if t.later != nil {
		t.later.Stop()
	}
	own := t.own
	t.mu.Unlock()
	if err := own.Finish(exit, failure); err != nil {
		t.warn(err.Error())
	}
	t.tell(outcomeOf(exit, failure))
}

// outcome is what the process that detached a run is told: how starting it went.
type outcome struct {
	Message string `json:"message,omitempty"` // a command that cannot be executed
	Error   string `json:"error,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
	Status  int    `json:"status,omitempty"`
}

func outcomeOf(exit workload.Exit, failure error) outcome {
	if failure == nil {
		return outcome{Message: exit.Message, Status: exit.Status()}
	}
	o := outcome{Error: failure.Error()}
	o.Remedy, o.Status = workload.Advice(failure)
	return o
}

// tell reports once.
func (t *Tracked) tell(o outcome) {
	if t.report == nil {
		return
	}
	_ = json.NewEncoder(t.report).Encode(o) // whoever started this may have gone
	_ = t.report.Close()
	t.report = nil
}

// await waits for the report of a detached run.
func await(ctx context.Context, report *os.File) (outcome, error) {
	stop := context.AfterFunc(ctx, func() { _ = report.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var o outcome
	err := json.NewDecoder(report).Decode(&o)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return o, err
}
