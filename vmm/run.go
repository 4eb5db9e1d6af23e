package vmm

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
)

// ErrRan reports a second Run: a VM boots once.
var ErrRan = errors.New("the VM has run already")

// Run runs the guest until it ends or ctx does, and says how. When ctx ends,
// Run returns within 100 ms whatever the guest does, with reason Canceled and no
// error. An error means that KVM itself failed.
func (v *VM) Run(ctx context.Context) (Exit, error) {
	if v.ran.Swap(true) {
		return Exit{}, ErrRan
	}
	defer reserve(len(v.cpus))()
	stop := context.AfterFunc(ctx, func() {
		v.end(Exit{Reason: Canceled, Detail: context.Cause(ctx).Error()})
		v.console.release() // a vCPU that waits for the console goes on
	})
	defer stop()
	err := v.runAll()
	v.console.drain(ctx)
	v.resident.Store(resident(v.mem))
	if err != nil {
		return Exit{}, err
	}
	v.endMu.Lock()
	defer v.endMu.Unlock()
	return *v.ended, nil
}

// runAll runs every vCPU on a thread of its own until they all have ended.
func (v *VM) runAll() error {
	errs := make([]error, len(v.cpus))
	var cpus, helpers sync.WaitGroup
	for i, c := range v.cpus {
		cpus.Go(func() {
			// The thread is KVM's vCPU; Kick signals it by its id. It is never
			// unlocked, and so ends with the goroutine: EnterVCPU may have taken
			// rights from it that no other goroutine can do without.
			runtime.LockOSThread()
			defer v.gate.leave()
			if errs[i] = v.loop(c); errs[i] != nil {
				v.end(Exit{Reason: InternalError, Detail: errs[i].Error()})
			}
		})
	}
	done := make(chan struct{})
	if v.cfg.CPULimit > 0 {
		helpers.Go(func() { v.throttle(v.cfg.CPULimit, done) })
	}
	cpus.Wait()
	close(done)
	helpers.Wait()
	return errors.Join(errs...)
}

// running is the number of vCPUs of all VMs in this process.
var running atomic.Int64

// reserve makes room in Go's scheduler for n more vCPUs; what it returns gives the
// room back to the next VM. A thread in KVM_RUN keeps its P until sysmon takes it
// away, up to 10 ms later, and everything else in the process waits that long when
// there are no more Ps than vCPUs. With GOMAXPROCS=1 the first byte of a workload
// came 145 ms later (in instruction time). The number of Ps
// is never lowered: that would stop the world again, and an idle P costs nothing.
func reserve(n int) func() {
	want := runtime.NumCPU() + int(running.Add(int64(n)))
	if runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
	return func() { running.Add(-int64(n)) }
}

// end makes the vCPUs leave their loops after the current exit. The first reason
// stands.
func (v *VM) end(e Exit) {
	v.endMu.Lock()
	if v.ended == nil {
		v.ended = &e
	}
	v.endMu.Unlock()
	if !v.stop.Swap(true) {
		close(v.stopping)
		v.gate.end()
		v.kick()
	}
}
