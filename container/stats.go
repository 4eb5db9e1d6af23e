package container

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/procstat"
	"github.com/duplex-run/duplex/internal/workload"
)

// Stats implements workload.Controller: of the cgroups, and of the processes
// themselves what no cgroup of the container counts.
func (c controller) Stats(context.Context) (workload.Stats, error) {
	l := &c.r.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return workload.NoStats(), workload.ErrEnded
	}
	s := c.r.cgroup.Stats()
	var pids []int
	for pid := range l.execs {
		pids = append(pids, pid)
	}
	init := c.r.init.Pid
	var threads, cpu int64
	list := procstat.Tree(append(pids, init)...)
	if s.BlockRead == workload.Unknown {
		s.BlockRead, s.BlockWritten = storage(list)
	}
	for _, pid := range list {
		u, err := procstat.Of(pid)
		if err != nil {
			continue // it has just ended
		}
		cpu += u.CPUNs + u.Reaped
		if pid != init { // which the limits do not count either
			threads += u.Threads
		}
	}
	if s.CPUNs == workload.Unknown {
		s.CPUNs = cpu
	}
	if s.Pids == workload.Unknown {
		s.Pids = threads
	}
	if in, out, err := procstat.Network(init); err == nil {
		s.NetworkIn, s.NetworkOut = in, out
	}
	return s, nil
}

// storage is what processes have had read from and written to storage.
func storage(list []int) (read, written int64) {
	for _, pid := range list {
		r, w, err := procstat.Storage(pid)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has just ended
		}
		if err != nil {
			return workload.Unknown, workload.Unknown
		}
		read, written = read+r, written+w
	}
	return read, written
}
