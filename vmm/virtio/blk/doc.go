// Package blk is a virtio block device (virtio 1.2 §5.2): a disk of the guest
// in a file or block device of the host.
//
// Data goes straight between the host's page cache (or, with Options.Direct,
// the host's disk) and the guest's buffers, by preadv and pwritev on guest
// memory; nothing is copied in between and nothing is allocated a request.
//
// Each queue is served on the goroutine that kicks it, so several queues work at
// the same time. A request is executed there at once, which for data in the page
// cache is quicker than to hand it to anyone. Only a request that has to wait
// for the disk while others wait behind it goes to a worker goroutine, and then
// answers may come in another order, as the specification allows.
//
// FLUSH is an fdatasync that ends before the guest hears of it. A driver that
// cannot flush, or that switches the write cache off (CONFIG_WCE), has each
// write on stable storage when the write is answered (§5.2.6.2).
//
// From the guest's side inwards: lane.go serves a queue, request.go takes a
// request apart and executes it, transfer.go moves its data, disk.go is the file.
package blk
