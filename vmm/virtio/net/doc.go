// Package net is a virtio network device (virtio 1.2 §5.1) with one pair of
// queues, checksum and segmentation offload, and mergeable receive buffers.
//
//	tap, err := net.OpenTAP("tap0")
//	dev, err := net.New(net.Options{Backend: tap, MAC: net.RandomMAC()})
//	// dev is a virtio.Device and owns the backend
//
// A Backend is a descriptor on which one readv or writev is one packet: a
// virtio_net_hdr of HeaderLen bytes and an Ethernet frame. TAP is the kernel's
// (Documentation/networking/tuntap.rst); Socket is one end of a Unix socket pair
// whose other end is a network stack in another process. Either way frames go
// between guest memory and kernel in one copy, which is the kernel's.
//
// Transmit (transmit.go) works on the goroutine that kicks. Where the backend
// has no room, or a Limiter says to wait, the packet at hand and the queue pass
// to the transmitter's own goroutine, which waits in the runtime's poller; so a
// kick never blocks, and the guest feels the back-pressure as a full queue.
//
// Receive (receive.go) has a goroutine that owns the receive queue. It keeps
// buffers gathered for the largest packet, reads into them, and sends one
// interrupt a batch. A packet that the gathered buffers cannot hold ends in a
// spill buffer of the host and is completed when the guest offers more, or
// dropped after a while.
//
// The guest's virtio_net_hdr is hostile: Header.Sanitize is all that looks at
// it, and what goes on is its result. A bad packet is dropped and counted; only
// a chain that is no packet at all is a violation (DEVICE_NEEDS_RESET).
package net
