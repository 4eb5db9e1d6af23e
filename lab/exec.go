package lab

import (
	"context"
	"errors"
	"io"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
)

// controller acts on a lab whose command runs.
type controller struct {
	mux *agentproto.Mux
	env []string // the command's
}

// Exec implements workload.Controller: the command runs in the machine itself. A
// spec without an environment gets that of the lab's command.
func (c *controller) Exec(ctx context.Context, spec workload.Spec, stdio workload.Stdio) (workload.Exit, error) {
	if spec.Env == nil {
		spec.Env = c.env
	}
	open := func(agentproto.Port) (io.ReadWriteCloser, error) { return c.mux.Open() }
	var started func()
	if stdio.Running != nil {
		started = func() { stdio.Running(c) }
	}
	exit, err := agentproto.RunFurther(ctx, open, spec, stdio, started)
	if errors.Is(err, io.ErrClosedPipe) || errors.Is(err, agentproto.ErrGone) {
		return exit, workload.ErrEnded
	}
	return exit, err
}

// Stats implements workload.Controller: a lab does not know.
func (c *controller) Stats(context.Context) (workload.Stats, error) {
	return workload.NoStats(), nil
}
