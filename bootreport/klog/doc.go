// Package klog reads a guest kernel's log, as /dev/kmsg has it, and finds in it how
// long the kernel says its initialisation calls took.
//
// The log is the guest's word, and hostile: its size, the number and length of its
// lines and the numbers in them are bounded, what cannot be printed is replaced,
// and no time runs backward. What it says is only shown, next to what the host saw
// itself.
//
//	log := klog.Parse(text)
//	for _, c := range log.Initcalls { ... }
//
// A record is "PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,...];TEXT", and lines that
// begin with a space belong to the record before them
// (Documentation/ABI/testing/dev-kmsg). With initcall_debug on its command line
// the kernel writes a record before and after each initcall (init/main.c,
// trace_initcall_start_cb and trace_initcall_finish_cb) and after each probe of a
// device by a driver (drivers/base/dd.c, really_probe_debug):
//
//	calling  inet_init+0x0/0x296 @ 1
//	initcall inet_init+0x0/0x296 returned 0 after 3079 usecs
//	probe of virtio0 returned 0 after 1318 usecs
package klog
