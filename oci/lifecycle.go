package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/hook"
	"github.com/duplex-run/duplex/container/inside"
)

// Start has a created container execute its program (runtime.md, "Start") and
// returns when it has.
func (c *Container) Start(ctx context.Context) error {
	switch s := c.Status(); s {
	case specs.StateCreated:
	case specs.StateStopped:
		return fmt.Errorf("cannot start a container that has stopped")
	case specs.StateRunning:
		return fmt.Errorf("cannot start an already running container")
	default:
		return fmt.Errorf("cannot start a container in the %s state", s)
	}
	if c.Spec.Process == nil {
		c.killInit()
		return errors.New("the bundle's config.json has no process to start")
	}
	if err := c.release(ctx); err != nil {
		return err
	}
	if c.Spec.Hooks == nil {
		return nil
	}
	err := hook.All(ctx, "poststart", hookPlan(c.Spec.Hooks.Poststart), c.stateJSON(specs.StateRunning))
	if err != nil {
		c.killInit() // runtime.md, "Lifecycle", step 9
	}
	return err
}

// release tells the waiting process to go on, and listens to what becomes of it.
func (c *Container) release(ctx context.Context) error {
	conn, err := c.dial()
	if err != nil {
		return &handshake.StepError{Step: "reach the container", Err: err}
	}
	defer func() { _ = conn.F.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.F.Close() })
	defer stop()
	if err := conn.Send(handshake.Message{Kind: handshake.KindGo}); err != nil {
		return &handshake.StepError{Step: "reach the container", Err: err}
	}
	m, err := conn.Receive()
	switch {
	case ctx.Err() != nil:
		c.killInit()
		return context.Cause(ctx)
	case err == nil:
		c.killInit()
		if m.Kind == handshake.KindScript {
			m = handshake.Failed(inside.ScriptFailed(c.Spec.Process.Args[0], m.Code))
		}
		return failure(m)
	case !errors.Is(err, io.EOF):
		return &handshake.StepError{Step: "start the program", Err: err}
	}
	// The socket closed: by execve, or by an end without a word, which the state
	// shows as any other end.
	return os.Remove(c.path(startSock))
}

// Kill sends a signal to the container's first process, or to all of them.
func (c *Container) Kill(sig unix.Signal, all bool) error {
	if c.VM != nil {
		return c.killGuest(sig, all)
	}
	if all {
		if c.Cgroups == nil || len(c.Cgroups.Dirs) == 0 {
			return errors.New("kill --all needs a cgroup, and the container has none")
		}
		return c.Cgroups.Signal(sig)
	}
	fd, err := c.pidfd()
	if err != nil {
		return errNotRunning
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.PidfdSendSignal(fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return errNotRunning
	}
	if err == nil && sig == unix.SIGKILL && c.Status() == statePaused {
		return c.Cgroups.Freeze(false) // or it would not die
	}
	return err
}

// errNotRunning has the words that engines look for.
var errNotRunning = errors.New("container not running")

// ErrNotStopped says that a container lives.
var ErrNotStopped = errors.New("that is not stopped")

// Delete removes a stopped container (runtime.md, "Delete"); with force a living
// one too, which is killed. warn is told of hooks that fail.
func (c *Container) Delete(ctx context.Context, force bool, warn func(string)) error {
	s := c.Status()
	if s != specs.StateStopped && !force {
		return fmt.Errorf("cannot delete container %q %w: it is %s", c.ID, ErrNotStopped, s)
	}
	if s == statePaused {
		if err := c.Kill(unix.SIGKILL, false); err != nil {
			return err
		}
	}
	c.killInit()
	if err := c.Cgroups.Remove(); err != nil {
		return err
	}
	if c.Spec.Hooks != nil {
		// Every hook runs, whatever the ones before it did.
		for _, h := range hookPlan(c.Spec.Hooks.Poststop) {
			if err := hook.All(ctx, "poststop", []handshake.Hook{h}, c.stateJSON(specs.StateStopped)); err != nil {
				warn(err.Error())
			}
		}
	}
	return c.undo()
}
