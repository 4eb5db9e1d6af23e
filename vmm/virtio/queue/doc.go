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
// A Queue knows nothing of notifications: Serve and Push say whether the driver
// wants an interrupt, and the device sends it. A Queue is not safe for
// concurrent use by several goroutines; the driver on the other side of the
// memory may do what it likes.
package queue
