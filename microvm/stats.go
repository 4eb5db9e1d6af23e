package microvm

import (
	"context"
	"errors"
	"os"

	"github.com/duplex-run/duplex/internal/procstat"
	"github.com/duplex-run/duplex/internal/workload"
)

// Stats implements workload.Controller. All of it is the host's own word: the
// guest is not asked. Guest memory is the monitor's.
func (m controller) Stats(context.Context) (workload.Stats, error) {
	s := workload.NoStats()
	s.MemoryLimit = int64(m.hardware.Memory)
	pid := int(m.monitor.Load())
	if pid == 0 {
		pid = os.Getpid() // --no-jail
	}
	u, err := procstat.Of(pid)
	if errors.Is(err, os.ErrNotExist) {
		err = workload.ErrEnded
	}
	s.CPUNs, s.Memory = u.CPUNs, u.Resident
	return s, err
}
