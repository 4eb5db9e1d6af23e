package kvm

import (
	"sync/atomic"
	"unsafe"
)

// setImmediateExit sets kvm_run.immediate_exit (byte 1): Run then returns
// without entering the guest. Byte 0, request_interrupt_window, stays 0 as it
// always is with an in-kernel irqchip; bytes 2 and 3 are padding.
func (c *VCPU) setImmediateExit(on bool) {
	var v uint32
	if on {
		v = 1 << 8
	}
	// SAFETY: page is a live mapping of at least runPageSize bytes, aligned to a
	// page; KVM reads the byte with READ_ONCE, and nobody else writes the word.
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&c.page[0])), v)
}
