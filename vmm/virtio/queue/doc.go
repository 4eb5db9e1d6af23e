// Package queue is the device's end of a split virtqueue (virtio 1.2 §2.7).
//
// A split virtqueue is three areas in guest memory:
//
//	descriptor table   16 bytes an entry: address, length, flags, next
//	avail ring         the driver publishes heads of descriptor chains here
//	used ring          the device publishes (head, bytes written) here
//
// The driver is the guest and is not trusted. Every descriptor is copied out of
// guest memory once and only the copy is validated and used, so that a guest
// which rewrites it meanwhile gains nothing. A chain holds at most as many
// descriptors as the queue, which is what ends a loop. Anything against the
// specification is an *Error that names the rule; the queue then stays broken
// until it is made anew, and its device asks the driver for a reset
// (DEVICE_NEEDS_RESET, §2.1.2).
//
// Serve is the loop of a device: it takes chains, gives each to a Handler and
// returns it to the driver. A handler that cannot answer at once says Later or
// Again. While Serve works the driver is asked for no notifications, so a busy
// queue costs less than one exit a request.
//
// A Queue knows nothing of notifications: Serve, Finish and Push say whether the
// driver wants an interrupt, and the device sends it. Pop, Rearm and Serve are
// for one goroutine at a time; Push, Finish, WantsInterrupt and Halt may be
// called from others meanwhile. The driver on the other side of the memory may
// do what it likes.
package queue
