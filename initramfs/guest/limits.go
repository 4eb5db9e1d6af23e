package main

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// sizeShm gives /dev/shm another size than tmpfs's own, half of memory.
func sizeShm(size int64) error {
	if size == 0 {
		return nil
	}
	if err := unix.Mount("", "/dev/shm", "", unix.MS_REMOUNT|hard, "size="+strconv.FormatInt(size, 10)); err != nil {
		return fmt.Errorf("set the size of /dev/shm: %w", err)
	}
	return nil
}

// limits sets the resource limits of a child that was started to be traced by this
// thread (ptrace(2)), which stands still before its first instruction, and lets it
// go on. This process's own limits would hit the agent.
func (c *children) limits(pid int, ch child, limits []workload.Rlimit) error {
	err := c.awaitStop(pid, ch)
	for _, l := range limits {
		if err == nil {
			err = unix.Prlimit(pid, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil)
		}
	}
	if err == nil {
		err = syscall.PtraceDetach(pid)
	}
	if err != nil {
		c.kill(pid)
		return fmt.Errorf("set the resource limits: %w", err)
	}
	return nil
}

// awaitStop waits until a child that this thread traces stands still.
func (c *children) awaitStop(pid int, ch child) error {
	early := func(ws syscall.WaitStatus) error { return fmt.Errorf("it ended early: %#x", uint32(ws)) }
	c.mu.Lock()
	reaping := c.reaping
	c.mu.Unlock()
	if reaping {
		select {
		case <-ch.stopped:
			return nil
		case ws := <-ch.ended:
			ch.ended <- ws
			return early(ws)
		}
	}
	for {
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err == nil && !ws.Stopped():
			return early(ws)
		default:
			return err
		}
	}
}
