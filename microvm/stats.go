package microvm

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/duplex-run/duplex/internal/procstat"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
)

// answerTime bounds how long the guest and the monitor are waited for. What a
// machine that is busy or hostile does not answer is not known.
const answerTime = 5 * time.Second

// Stats implements workload.Controller. Processor time, memory and blocks are the
// host's own word, of the monitor's process; the network is the monitor's, which
// carries it; only the processes are the guest's.
func (m controller) Stats(ctx context.Context) (workload.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	s := workload.NoStats()
	s.MemoryLimit = int64(m.hardware.Memory)
	if m.pids > 0 {
		s.PidsLimit = m.pids
	}
	pid := int(m.monitor.Load())
	if pid == 0 {
		pid = os.Getpid() // --no-jail
	}
	u, err := procstat.Of(pid)
	if errors.Is(err, os.ErrNotExist) {
		err = workload.ErrEnded
	}
	if err != nil {
		return s, err
	}
	s.CPUNs, s.Memory = u.CPUNs, u.Resident
	if read, written, err := procstat.Storage(pid); err == nil {
		s.BlockRead, s.BlockWritten = read, written
	}
	count := make(chan int64, 1)
	go func() {
		if n, err := m.session.Count(ctx); err == nil {
			count <- n
		}
		close(count)
	}()
	if len(m.hardware.Networks) == 0 {
		s.NetworkIn, s.NetworkOut = 0, 0
	} else if c, ok := m.costSoFar(ctx); ok {
		s.NetworkIn, s.NetworkOut = int64(c.NetworkIn&maxCount), int64(c.NetworkOut&maxCount)
	}
	select {
	case n, ok := <-count:
		if ok {
			s.Pids = n
		}
	case <-ctx.Done(): // the guest does not even read
	}
	return s, nil
}

// maxCount keeps a count that a monitor makes up from being negative.
const maxCount = 1<<63 - 1

// costSoFar asks the monitor; false means that it does not say.
func (m *machine) costSoFar(ctx context.Context) (vmm.Stats, bool) {
	m.asking.Lock()
	defer m.asking.Unlock()
	select {
	case <-m.answers: // to somebody who waited no longer
	default:
	}
	select {
	case m.ask <- struct{}{}:
	case <-m.over:
		return vmm.Stats{}, false
	case <-ctx.Done():
		return vmm.Stats{}, false
	}
	select {
	case s := <-m.answers:
		return s, true
	case <-m.over:
	case <-ctx.Done():
	}
	return vmm.Stats{}, false
}

// answer takes the monitor's, who may say more than it is asked.
func (m *machine) answer(s vmm.Stats) {
	select {
	case m.answers <- s:
	default:
	}
}
