package inside

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"

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

// StartIn makes the namespaces of flags the calling thread's, but for that of
// processes, and starts in all of them the process that is PID 1 there, with nothing
// in its environment; exe is its program, one of files. This process can take its
// descriptors, by the pidfd that comes with it.
func StartIn(flags uintptr, exe *os.File, name string, files []*os.File, sys *syscall.SysProcAttr) (*os.Process, int, error) {
	if err := unix.Unshare(int(flags) &^ unix.CLONE_NEWPID); err != nil {
		return nil, -1, fmt.Errorf("unshare: %w", err)
	}
	// By its number there: starting a process moves descriptors over others.
	path := fmt.Sprintf("/proc/self/fd/%d", slices.Index(files, exe))
	pidfd := -1
	sys.Setsid, sys.Cloneflags, sys.PidFD = true, unix.CLONE_NEWPID, &pidfd
	process, err := os.StartProcess(path, []string{name},
		&os.ProcAttr{Dir: "/", Env: []string{}, Files: files, Sys: sys})
	if err == nil {
		err = mayTake(process, pidfd)
	}
	return process, pidfd, err
}

// mayTake looks whether this process gets the process's descriptors, and else ends
// it: where tracing is forbidden (Yama's ptrace_scope 3, a filter), it does not.
func mayTake(process *os.Process, pidfd int) error {
	fd, err := unix.PidfdGetfd(pidfd, 0, 0)
	if err == nil {
		return unix.Close(fd)
	}
	_ = process.Kill()
	_, _ = process.Wait()
	_ = unix.Close(pidfd)
	return fmt.Errorf("%w: %w", ErrNotHere, err)
}
