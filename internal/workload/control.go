package workload

import (
	"context"
	"errors"
)

// Controller acts on a workload while it runs. Its methods may be called from
// several goroutines at once.
type Controller interface {
	// Exec runs a further command beside the workload, in the same file system and
	// with the same restrictions, and stays with it to its end. Of spec it takes
	// Argv, Env, Cwd, User, TTY, Size, Interactive and Timeout. It ends with the
	// workload (SIGKILL), or when ctx does.
	Exec(ctx context.Context, spec Spec, stdio Stdio) (Exit, error)
	// Stats is what the run uses at this moment.
	Stats(ctx context.Context) (Stats, error)
}

// ErrEnded reports a workload that runs no more.
var ErrEnded = errors.New("the workload has ended")

// Stats are a run's counters. A number that is not known is Unknown.
type Stats struct {
	// CPUNs is host CPU time so far, in nanoseconds: of the workload's cgroup, or
	// of the microVM's monitor with its vCPUs.
	CPUNs int64 `json:"cpu_ns"`
	// Memory in bytes: of the cgroup without the page cache that can be dropped, or
	// what the host holds for the guest and its monitor.
	Memory int64 `json:"memory"`
	// MemoryLimit in bytes: the cgroup's, or the size of the guest.
	MemoryLimit int64 `json:"memory_limit"`
	// Pids counts processes and threads, and PidsLimit bounds them.
	Pids      int64 `json:"pids"`
	PidsLimit int64 `json:"pids_limit"`
	// NetworkIn and NetworkOut are bytes, seen from the workload.
	NetworkIn  int64 `json:"network_in"`
	NetworkOut int64 `json:"network_out"`
	// BlockRead and BlockWritten are bytes.
	BlockRead    int64 `json:"block_read"`
	BlockWritten int64 `json:"block_written"`
}

// Unknown is a number of Stats that nobody can tell, or a limit that is not there.
const Unknown = -1

// NoStats are Stats of which nothing is known.
func NoStats() Stats {
	return Stats{Unknown, Unknown, Unknown, Unknown, Unknown, Unknown, Unknown, Unknown, Unknown}
}
