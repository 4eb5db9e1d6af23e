package vmm

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// eventFD is an eventfd(2) in the runtime's poller: waiting costs no thread, and
// close ends a wait.
type eventFD struct {
	file *os.File
	raw  int
}

func newEventFD() (*eventFD, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd2", err)
	}
	return &eventFD{os.NewFile(uintptr(fd), "eventfd"), fd}, nil
}

// fd is the descriptor, to hand to KVM before close.
func (e *eventFD) fd() int { return e.raw }

var one = binary.NativeEndian.AppendUint64(nil, 1)

// signal adds an event. A full counter and a closed eventfd are no failure:
// then the event is pending already, or nobody waits for it.
func (e *eventFD) signal() { _, _ = e.file.Write(one) }

// wait blocks until there is an event and takes it, or reports false once the
// eventfd is closed.
func (e *eventFD) wait() bool {
	var b [8]byte
	_, err := e.file.Read(b[:])
	return err == nil
}

func (e *eventFD) close() error { return e.file.Close() }
