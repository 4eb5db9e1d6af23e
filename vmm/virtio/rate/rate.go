package rate

import (
	"math"
	"sync"
	"time"
)

// BurstTime is how long an idle device saves up for a burst, where a Limit does
// not say otherwise.
const BurstTime = 100 * time.Millisecond

// Limit is a rate limit. The zero Limit limits nothing.
type Limit struct {
	// Bytes and Ops are the rates, a second; 0 is no limit.
	Bytes, Ops uint64
	// BurstBytes and BurstOps bound what an idle device may do at once; 0 is what
	// the rate gives in BurstTime, at least 1.
	BurstBytes, BurstOps uint64
}

// Limiter enforces a Limit. A nil Limiter limits nothing. All methods may be
// called from several goroutines.
type Limiter struct {
	mu         sync.Mutex
	last       time.Time // when the buckets were filled up to date
	ops, bytes bucket
}

// New makes a Limiter with full buckets; it is nil when l limits nothing.
func New(l Limit) *Limiter {
	if l.Bytes == 0 && l.Ops == 0 {
		return nil
	}
	return &Limiter{
		last:  time.Now(),
		ops:   newBucket(l.Ops, l.BurstOps),
		bytes: newBucket(l.Bytes, l.BurstBytes),
	}
}

// Take takes ops operations and bytes bytes, and returns 0; or it takes nothing
// and returns how long to wait before it is worth asking again. A request larger
// than the burst goes when the bucket is full, and the ones after it wait for
// what it took too much. Neither number may be negative.
func (l *Limiter) Take(ops, bytes int) time.Duration {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	elapsed := now.Sub(l.last)
	l.last = now
	l.ops.fill(elapsed)
	l.bytes.fill(elapsed)
	if wait := max(l.ops.wait(ops), l.bytes.wait(bytes)); wait > 0 {
		return wait
	}
	l.ops.level -= float64(ops)
	l.bytes.level -= float64(bytes)
	return 0
}

// bucket holds tokens. One without a limit has an infinite level.
type bucket struct {
	rate  float64 // tokens a second
	burst float64 // the most it holds
	level float64 // negative after a request larger than the burst
}

func newBucket(rate, burst uint64) bucket {
	if rate == 0 {
		return bucket{level: math.Inf(1), burst: math.Inf(1)}
	}
	b := bucket{rate: float64(rate), burst: float64(burst)}
	if burst == 0 {
		b.burst = max(1, b.rate*BurstTime.Seconds())
	}
	b.level = b.burst
	return b
}

func (b *bucket) fill(elapsed time.Duration) {
	b.level = min(b.burst, b.level+b.rate*elapsed.Seconds())
}

// wait is the time until n tokens can be taken, rounded up.
func (b *bucket) wait(n int) time.Duration {
	missing := min(float64(n), b.burst) - b.level
	if missing <= 0 {
		return 0
	}
	return time.Duration(min(math.Ceil(missing/b.rate*float64(time.Second)), float64(math.MaxInt64/2)))
}
