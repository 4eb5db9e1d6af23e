// Package rate limits what a device does a second, in operations and in bytes.
//
// A Limiter is two token buckets. Take asks for one request's worth of both and
// never blocks: it says how long to wait, and a device that has to wait leaves
// the request where it is (queue.Again) and sets a timer to serve the queue
// again. So no lock is held and no goroutine waits meanwhile, and a reset finds
// nothing to undo but the timer.
package rate
