package main

import (
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// children is who of PID 1's children is waited for by whom: all of them, and
// everybody's orphans, are reaped in one place.
type children struct {
	mu      sync.Mutex
	waiting map[int]child
	reaping bool // reap tells of everything, and nobody else waits
	ended   bool
}

// child is one that is waited for.
type child struct {
	ended   chan syscall.WaitStatus
	stopped chan struct{} // for its tracer, the first time
}

var errEnded = errors.New("the workload has ended")

// start calls fork and returns what tells how its child ended. It fails once the
// workload has ended: nothing outlives it.
func (c *children) start(fork func() (int, error)) (int, child, error) {
	c.mu.Lock() // a child may end before it is noted down
	defer c.mu.Unlock()
	if c.ended {
		return 0, child{}, errEnded
	}
	pid, err := fork()
	if err != nil {
		return 0, child{}, err
	}
	if c.waiting == nil {
		c.waiting = map[int]child{}
	}
	c.waiting[pid] = child{make(chan syscall.WaitStatus, 1), make(chan struct{}, 1)}
	return pid, c.waiting[pid], nil
}

// signal signals a child that has not been reaped.
func (c *children) signal(pid int, sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.waiting[pid]; ok {
		_ = syscall.Kill(pid, sig) // it may have ended
	}
}

// kill ends a child and its process group, if it has not been reaped.
func (c *children) kill(pid int) {
	c.signal(pid, unix.SIGKILL)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.waiting[pid]; ok {
		_ = unix.Kill(-pid, unix.SIGKILL) // it leads a session of its own
	}
}

// leave leaves all waiting to reap from now on.
func (c *children) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reaping = true
}

// reap reaps until the workload's process and everything else is gone.
func (c *children) reap(workload int) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil { // ECHILD: nobody is left
			return
		}
		c.mu.Lock()
		ch, ok := c.waiting[pid]
		if ws.Stopped() {
			if ok {
				select {
				case ch.stopped <- struct{}{}:
				default:
				}
			}
			c.mu.Unlock()
			continue
		}
		if ok {
			delete(c.waiting, pid)
			ch.ended <- ws
		}
		if pid == workload {
			c.ended = true
			// As in a PID namespace, nothing outlives the workload. PID 1 and
			// kernel threads are spared (kill(2)).
			_ = unix.Kill(-1, unix.SIGKILL)
		}
		c.mu.Unlock()
	}
}
