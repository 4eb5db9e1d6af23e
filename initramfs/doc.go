// Package initramfs builds the first root file system of a guest kernel: a newc
// cpio archive with the agent as /init and the modules it loads before it can
// reach its host and its image.
//
//	/init            the agent (initramfs/guest), PID 1
//	/modules/*.ko    uncompressed modules, without what slows their loading
//	/modules/order   file names, one a line, of those to load, in that order
//	/modules/late-*  the same for modules that only some workloads need
//	/dev /proc /sys  empty, for the agent to mount on
//
// Nothing in it depends on the run, so Build makes an archive once for an agent,
// a set of modules and a kernel, and finds it in the cache from then on. The same
// inputs give the same bytes: no times, no owners, no host order.
//
// The archive is not compressed, because unpacking is what it costs. Measured with
// `go test -run - -bench Unpack ./initramfs` (Debian's 6.1 cloud kernel, the
// microVM's set, instruction time at 2 ns an instruction, the same on every
// machine):
//
//	          bytes      guest ms
//	none      3,635,696   43
//	lz4       1,727,106  132
//	zstd      1,339,084  202
//	gzip      1,426,870  211
//
// What compression saves, the copy of 2 MB into guest memory, takes the host well
// under a millisecond. Of the 3.6 MB the agent is 2.6 and eleven modules 1.0.
// Loading the modules costs another 65 guest ms. Without the symbols and types they
// do not need it would be 52, for an ELF writer here; they stay whole.
package initramfs
