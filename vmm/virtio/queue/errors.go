package queue

import (
	"errors"
	"fmt"
)

// What a driver can do wrong. Errors from guest memory accesses
// (memory.ErrOutOfRange and the like) are the other causes of an *Error.
var (
	// ErrSize: the queue size is zero, no power of two or above the maximum (§2.7).
	ErrSize = errors.New("queue size is not a power of two within the maximum")
	// ErrAlign: descriptor table, avail or used ring not aligned to 16, 2, 4 (§2.7).
	ErrAlign = errors.New("ring area is misaligned")
	// ErrAvail: the avail index ran ahead by more than the queue size (§2.7.13.3).
	ErrAvail = errors.New("avail index is more than the queue size ahead")
	// ErrInUse: more chains made available than the queue has descriptors, counting
	// those that the device has not returned yet (§2.7.13).
	ErrInUse = errors.New("more chains are outstanding than the queue has descriptors")
	// ErrIndex: a head or a next field is not below the table's size (§2.7.5).
	ErrIndex = errors.New("descriptor index is out of the table")
	// ErrTooLong: a chain longer than the queue size, which a loop always is (§2.7.5.2).
	ErrTooLong = errors.New("descriptor chain is longer than the queue")
	// ErrIndirect: an indirect table that was not negotiated, is nested, continues
	// with NEXT, or whose length is no multiple of 16 (§2.7.5.3).
	ErrIndirect = errors.New("indirect descriptor is not allowed here")
	// ErrOrder: a device-readable descriptor after a device-writable one (§2.7.4.2).
	ErrOrder = errors.New("readable descriptor follows a writable one")
	// ErrEmpty: a descriptor of length zero.
	ErrEmpty = errors.New("descriptor of length zero")
	// ErrBytes: the chain's bytes add up to 4 GiB or more (§2.7.5).
	ErrBytes = errors.New("descriptor chain holds 4 GiB or more")
	// ErrState: a saved State that no device leaves behind.
	ErrState = errors.New("saved indices are impossible")
)

// Error is a violation of the virtqueue rules by the driver.
type Error struct {
	// Op is what the device was doing: "set up", "restore", "pop",
	// "push", "rearm".
	Op string
	// Desc is the descriptor at fault, or -1.
	Desc int
	// Err is the rule, one of the Err variables, or an error of package memory.
	Err error
}

func (e *Error) Error() string {
	if e.Desc < 0 {
		return fmt.Sprintf("virtqueue %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("virtqueue %s: descriptor %d: %v", e.Op, e.Desc, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }
