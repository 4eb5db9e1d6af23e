package vmm

import (
	"context"
	"sync"
	"sync/atomic"
)

// gate is where the vCPUs wait while somebody holds them back: Pause, or the
// throttle. A vCPU goes through it whenever it was interrupted in KVM_RUN, so who
// holds the gate kicks the vCPUs after that.
type gate struct {
	// attention is false as long as vCPUs just go through.
	attention atomic.Bool

	mu      sync.Mutex
	cond    sync.Cond // anything below changed
	holds   int
	open    bool // for good: the run ends
	running int  // vCPUs that are neither at the gate nor gone
}

func (g *gate) init(cpus int) {
	g.cond.L = &g.mu
	g.running = cpus
}

// pass waits while the gate is held, and reports false once the run ends.
func (g *gate) pass() bool {
	if !g.attention.Load() {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holds > 0 && !g.open {
		g.running--
		g.cond.Broadcast()
		for g.holds > 0 && !g.open {
			g.cond.Wait()
		}
		g.running++
	}
	return !g.open
}

// held says whether the gate is held and every vCPU is at it or gone.
func (g *gate) held() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.holds > 0 && g.running == 0 && !g.open
}

// leave says that a vCPU will not come again.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	g.cond.Broadcast()
}

// hold holds back the vCPUs that come from now on, until as many releases.
func (g *gate) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holds++
	g.attention.Store(true)
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holds--
	g.attention.Store(g.holds > 0 || g.open)
	g.cond.Broadcast()
}

// end lets everybody through, and out.
func (g *gate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = true
	g.attention.Store(true)
	g.cond.Broadcast()
}

// still waits until every vCPU is at the gate or gone, or ctx ends.
func (g *gate) still(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.cond.Broadcast()
	})
	defer stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.running > 0 && ctx.Err() == nil {
		g.cond.Wait()
	}
	if g.running > 0 {
		return ctx.Err()
	}
	return nil
}
