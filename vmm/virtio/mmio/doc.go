// Package mmio is the virtio-mmio transport, version 2 (virtio 1.2 §4.2).
//
// A Transport is the register file of one device: bind it to Size bytes of the
// MMIO bus and give it a way to raise an interrupt. It runs the status state
// machine (§2.1, §3.1.1), gathers what the driver says of its queues, and
// activates the device when the driver is ready. A driver that does things out
// of turn sees DEVICE_NEEDS_RESET in the status, and the Transport remembers
// why (Err); nothing it writes can do more.
//
// QueueNotify works by a register write, which costs an exit to this process;
// a monitor binds an ioeventfd to NotifyOffset for each queue instead, with the
// queue's index as the value to match, and calls Kick.
package mmio
