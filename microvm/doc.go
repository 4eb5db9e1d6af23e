// Package microvm runs a workload in a virtual machine of its own: it is the
// workload.Runner that composes the monitor (vmm), a guest kernel, an initramfs
// with the guest agent, and the image's EROFS file.
//
//	r := microvm.Runner{Kernel: vmlinux, Initrd: initramfs}
//	exit, err := r.Run(ctx, spec, workload.Stdio{Out: os.Stdout, Err: os.Stderr}, rec)
//
// One Run is one machine. Its devices are a read-only disk (the image), an
// entropy source and a socket device; the agent connects to four ports of the
// latter for control, stdin, stdout and stderr. agentproto.Session speaks with
// the agent; this package makes the machine around it, and says what happened
// when the machine ends before the workload does: the kernel's panic line from
// the serial console, a power off, a restart, a triple fault.
//
// What is different from a container, because the guest has a kernel of its own:
// memory is the machine's size rather than a limit (DefaultMemory when none is
// given), the root file system is an overlay whose writable layer takes memory,
// and /proc and /sys are unmasked.
//
// The monitor is a process of its own, confined before the guest's first
// instruction (internal/jail, docs/threat-model.md):
//
//	this process                        the monitor (microvm/monitor)
//	Boot, Runner      -- setup -->      bootHere: devices, vmm.New
//	process.go        -- orders ->      jail.Enter, vmm.Run
//	                  <- notes ---      events, marks, statistics, the end
//	agentproto.Session <- bytes ->      bridge.go: the guest's sockets
//
// wire.go has the messages, parcel.go the open files that go along: the
// monitor opens none of the user's. Its program is what Program opens, or this
// executable once more: so main must call Init before anything else.
// With NoJail, bootHere runs in this process.
//
// Nothing is left when Run returns. When this process is killed, the kernel kills
// the monitor, and there is nothing else to clean.
// One goroutine may outlive Run: the one that reads stdio.In, until that read
// returns.
package microvm
