package rate_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/duplex-run/duplex/vmm/virtio/rate"
)

// run takes as fast as it may for d of the bubble's clock, and says how often.
func run(l *rate.Limiter, d time.Duration, bytes int) (n int) {
	for start := time.Now(); ; {
		wait := l.Take(1, bytes)
		if wait == 0 {
			n++
			continue
		}
		if time.Since(start)+wait > d {
			return n
		}
		time.Sleep(wait)
	}
}

func TestRate(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit rate.Limit
		bytes int // of a request
		want  int // requests in ten seconds: the burst, and ten times the rate
	}{
		{"operations", rate.Limit{Ops: 100}, 4096, 10 + 1000},
		{"few operations", rate.Limit{Ops: 1}, 4096, 1 + 10},
		{"operations with a burst", rate.Limit{Ops: 100, BurstOps: 500}, 4096, 500 + 1000},
		{"bytes", rate.Limit{Bytes: 1 << 20}, 1 << 10, 102 + 10<<10},
		{"bytes with a burst", rate.Limit{Bytes: 1 << 20, BurstBytes: 4 << 20}, 1 << 20, 4 + 10},
		{"requests larger than the burst", rate.Limit{Bytes: 1 << 20, BurstBytes: 1}, 2 << 20, 1 + 5},
		{"both, operations first", rate.Limit{Ops: 10, Bytes: 1 << 30}, 512, 1 + 100},
		{"both, bytes first", rate.Limit{Ops: 1 << 20, Bytes: 5120}, 512, 1 + 100},
		{"requests of no bytes", rate.Limit{Ops: 10, Bytes: 1}, 0, 1 + 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := run(rate.New(c.limit), 10*time.Second, c.bytes)
				if got < c.want-1 || got > c.want+1 {
					t.Errorf("%d requests, want %d", got, c.want)
				}
			})
		})
	}
}

// An idle device saves up no more than its burst.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := rate.New(rate.Limit{Ops: 10, BurstOps: 5})
		time.Sleep(time.Hour)
		for i := range 5 {
			if wait := l.Take(1, 0); wait != 0 {
				t.Fatalf("request %d waits %v", i, wait)
			}
		}
		if wait := l.Take(1, 0); wait != 100*time.Millisecond {
			t.Errorf("waits %v, want 100 ms", wait)
		}
	})
}

func TestNoLimit(t *testing.T) {
	l := rate.New(rate.Limit{BurstOps: 1, BurstBytes: 1})
	for range 1000 {
		if wait := l.Take(1, 1<<30); wait != 0 {
			t.Fatalf("waits %v", wait)
		}
	}
}

// The extremes give a wait, not an overflow.
func TestExtremes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := rate.New(rate.Limit{Bytes: 1, Ops: 1<<64 - 1, BurstOps: 1<<64 - 1})
		if wait := l.Take(1, 1<<62); wait != 0 {
			t.Errorf("the first request waits %v", wait)
		}
		if wait := l.Take(1, 1<<62); wait <= 0 {
			t.Errorf("waits %v", wait)
		}
	})
}

func BenchmarkTake(b *testing.B) {
	l := rate.New(rate.Limit{Bytes: 1 << 40, Ops: 1 << 40})
	b.ReportAllocs()
	for b.Loop() {
		l.Take(1, 4096)
	}
}
