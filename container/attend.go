package container

import (
	"time"

	"github.com/duplex-run/duplex/internal/workload"
)

// deeds are what is done to a command while it runs.
type deeds struct {
	signal func(workload.Signal)
	kill   func()
}

// attend forwards signals and window sizes until the command of r ends, which it
// kills when its time is up; it returns how the command ended, and whether by that.
func attend[T any](r *run, ended <-chan T, stdio workload.Stdio, do deeds) (T, bool) {
	var timeout <-chan time.Time
	if r.spec.Timeout > 0 {
		timer := time.NewTimer(r.spec.Timeout)
		defer timer.Stop()
		timeout = timer.C
	}
	timedOut := false
	for {
		select {
		case end := <-ended:
			return end, timedOut
		case s, ok := <-stdio.Signals:
			if !ok {
				stdio.Signals = nil
				continue
			}
			do.signal(s)
		case size, ok := <-stdio.Resize:
			if !ok {
				stdio.Resize = nil
				continue
			}
			r.streams.resize(size)
		case <-timeout:
			timedOut = true
			do.kill()
		}
	}
}
