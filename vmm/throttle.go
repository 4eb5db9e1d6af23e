package vmm

import "time"

// The throttle works like the kernel's CFS bandwidth control, whose period is
// docker's --cpu-period too.
const (
	throttlePeriod = 100 * time.Millisecond
	throttleTick   = 5 * time.Millisecond
)

// throttle holds the vCPUs back for the rest of each period in which they have
// used limit periods of processor time, until done is closed. It looks every
// throttleTick, so they may use up to a tick a vCPU more; that is taken from the
// periods that follow.
func (v *VM) throttle(limit float64, done <-chan struct{}) {
	budget := time.Duration(limit * float64(throttlePeriod))
	left := budget
	used, began := v.cpuTime(), time.Now()
	held := false
	tick := time.NewTicker(throttleTick)
	defer tick.Stop()
	for {
		select {
		case <-done:
			if held {
				v.gate.release()
			}
			return
		case <-tick.C:
		}
		now := v.cpuTime()
		left -= max(0, now-used) // a vCPU that has ended counts no more
		used = now
		if periods := time.Since(began) / throttlePeriod; periods > 0 {
			began = began.Add(periods * throttlePeriod)
			left = min(budget, left+budget*periods)
		}
		switch {
		case left <= 0 && !held:
			held = true
			v.gate.hold()
			v.kick()
		case left > 0 && held:
			held = false
			v.gate.release()
		}
	}
}

// cpuTime is what the vCPUs' threads have used.
func (v *VM) cpuTime() time.Duration {
	var total int64
	for _, c := range v.cpus {
		total += c.kvm.CPUTime()
	}
	return time.Duration(total)
}
