package blk_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/duplex-run/duplex/vmm/virtio/blk"
	"github.com/duplex-run/duplex/vmm/virtio/rate"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// flood makes n reads of one sector available.
func flood(d *v.Driver, n int) {
	for range n {
		d.Ring(0).Add(d.Out(request(0, 0)), d.In(512), d.In(1))
	}
}

// A limited disk answers at its rate, though the driver notifies only once.
func TestLimit(t *testing.T) {
	for name, limit := range map[string]rate.Limit{
		"operations": {Ops: 10, BurstOps: 5},
		"bytes":      {Bytes: 10 * 512, BurstBytes: 5 * 512},
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := diskFile(t)
			synctest.Test(t, func(t *testing.T) {
				d := v.Start(t, openWith(t, blk.Options{Path: path, ReadOnly: true, Limit: limit}))
				flood(d, 25)
				start := time.Now()
				d.Kick(0)
				if n := d.Ring(0).UsedIndex(); n != 5 {
					t.Errorf("%d answered at once, want 5", n)
				}
				for range 25 {
					d.Kick(0) // a storm of notifications changes nothing
					d.Ring(0).Wait()
				}
				if took := time.Since(start).Round(time.Millisecond); took != 2*time.Second {
					t.Errorf("25 requests took %v, want 2s", took)
				}
			})
		})
	}
}

// Reset does not wait for requests that wait for the limit, and forgets them.
func TestResetWhileLimited(t *testing.T) {
	path, _ := diskFile(t)
	synctest.Test(t, func(t *testing.T) {
		dev := openWith(t, blk.Options{Path: path, ReadOnly: true, Limit: rate.Limit{Ops: 1, BurstOps: 1}})
		d := v.Start(t, dev)
		flood(d, 10)
		d.Kick(0)
		start := time.Now()
		r := d.Ring(0)
		d.SetReg(v.RegStatus, 0)
		if waited := time.Since(start); waited != 0 || r.UsedIndex() != 1 {
			t.Errorf("reset took %v, %d answered", waited, r.UsedIndex())
		}
		time.Sleep(time.Minute)
		if n := r.UsedIndex(); n != 1 {
			t.Errorf("%d answered after the reset", n-1)
		}
		d.Init()
		flood(d, 10)
		d.Kick(0)
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if n := d.Ring(0).UsedIndex(); n != 1 {
			t.Errorf("%d answered after the close", n-1)
		}
	})
}
