// Package initramfs builds the first root file system of a guest kernel: a newc
// cpio archive with the agent as /init and the modules it loads before it can
// reach its host and its image.
//
//	/init            the agent (initramfs/guest), PID 1
//	/modules/*.ko    uncompressed modules
//	/modules/order   their file names, one a line, in the order to load them
//	/dev /proc /sys  empty, for the agent to mount on
//
// Nothing in it depends on the run, so Build makes an archive once for an agent,
// a set of modules and a kernel, and finds it in the cache from then on. The same
// inputs give the same bytes: no times, no owners, no host order.
package initramfs
