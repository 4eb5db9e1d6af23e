package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// SpecVersion is the version of the runtime specification that bundles may have.
var SpecVersion = specs.Version

// RunOptions are what Run is given.
type RunOptions struct {
	CreateOptions
	Detach  bool    // return when the program has started
	Keep    bool    // do not delete the container in the end
	Signals Signals // for the container; before it starts they cancel the context
}

// Run creates and starts a container, waits for its end and deletes it. It
// returns the program's exit status, 128+n when signal n killed it.
func Run(ctx context.Context, o RunOptions) (int, error) {
	c, err := Create(ctx, o.CreateOptions)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var signals <-chan os.Signal
	late := c.Spec.Hooks != nil && len(c.Spec.Hooks.Poststart) > 0 // which may hang
	if !late {
		signals = o.Signals.take() // before: it may send this process a signal at once
	}
	if err := c.Start(ctx); err != nil {
		return 0, errors.Join(err, c.Delete(context.WithoutCancel(ctx), true, o.warn))
	}
	if late {
		signals = o.Signals.take()
	}
	if o.Detach {
		return 0, nil
	}
	c.Close() // others may kill it, exec in it, delete it
	status, err := c.wait(signals)
	if status == 128+int(unix.SIGKILL) && c.Cgroups.OOMKills() > 0 {
		o.warn("killed for want of memory: linux.resources.memory.limit is too low for it")
	}
	if o.Keep || err != nil {
		return status, err
	}
	created := c.Created
	c, err = c.open(true)
	if errors.Is(err, ErrNotExist) || err == nil && !c.Created.Equal(created) {
		return status, nil // others have deleted it
	}
	if err != nil {
		return status, err
	}
	defer c.Close()
	return status, c.Delete(context.WithoutCancel(ctx), true, o.warn)
}

func (o CreateOptions) warn(text string) {
	if o.Warn != nil {
		o.Warn(text)
	}
}

// wait waits for the container's first process, a child of this one, and
// forwards signals to it.
func (c *Container) wait(signals <-chan os.Signal) (int, error) {
	return waitFor(c.Pid, signals)
}

// Signals takes over those of this process: for a program that may have begun.
type Signals func() <-chan os.Signal

func (s Signals) take() <-chan os.Signal {
	if s == nil {
		return nil
	}
	return s()
}

func waitFor(pid int, signals <-chan os.Signal) (int, error) {
	type result struct {
		status unix.WaitStatus
		err    error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		for {
			_, r.err = unix.Wait4(pid, &r.status, 0, nil)
			if !errors.Is(r.err, unix.EINTR) {
				break
			}
		}
		done <- r
	}()
	for {
		select {
		case r := <-done:
			switch {
			case r.err != nil:
				return 0, fmt.Errorf("wait for the container: %w", r.err)
			case r.status.Signaled():
				return 128 + int(r.status.Signal()), nil
			}
			return r.status.ExitStatus(), nil
		case s := <-signals:
			sig, ok := s.(syscall.Signal)
			if !ok || sig == unix.SIGCHLD || sig == unix.SIGWINCH || sig == unix.SIGURG || sig == unix.SIGPIPE {
				continue
			}
			_ = unix.Kill(pid, sig) // it may have ended: then wait says so
		}
	}
}
