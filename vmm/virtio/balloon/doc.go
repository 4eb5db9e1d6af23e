// Package balloon is a virtio memory balloon (virtio 1.2 §5.5): it takes memory
// back from a running guest, in three ways.
//
//	Resize   asks the guest for pages; it picks some, says which (inflate), and
//	         they go back to the host. A smaller balloon returns them (deflate).
//	         A guest that runs out of memory takes pages back by itself.
//	reports  a guest with free page reporting names memory that it does not use
//	         at the moment; it goes back to the host without a balloon.
//	Stats    asks the guest's kernel how much memory it has, uses and caches.
//
// Pages go back by memory.Memory.Discard. The guest may touch a discarded page
// at any time, told us or not: it finds zeroes, and the host pays for the page
// again. So a lie about page numbers costs the guest its own data and nothing
// else. Page numbers that are no memory are counted and ignored.
//
// All work is bounded: MaxPages page numbers a request, and statistics of which
// StatsSize bytes are looked at. A request of another form breaks the device.
package balloon
