package inside

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// OnThread runs f on a thread of its own, which ends with it: what f does to the
// thread stays there. It is not the first one, which would not end, and whose
// namespaces are what /proc/self shows of this process.
func OnThread(f func()) {
	go func() {
		runtime.LockOSThread() // and never unlocked, but of the first
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		other := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(other)
			f()
		}()
		<-other // until then the first thread is taken
		runtime.UnlockOSThread()
	}()
}

// ErrNotHere says that a container cannot be built from outside on this host.
var ErrNotHere = errors.New("descriptors of a child cannot be had")

// MayTake looks whether this process gets the process's descriptors, and else ends
// it: where tracing is forbidden (Yama's ptrace_scope 3, a filter), it does not.
func MayTake(process *os.Process, pidfd int) error {
	fd, err := unix.PidfdGetfd(pidfd, 0, 0)
	if err == nil {
		return unix.Close(fd)
	}
	_ = process.Kill()
	_, _ = process.Wait()
	_ = unix.Close(pidfd)
	return fmt.Errorf("%w: %w", ErrNotHere, err)
}
