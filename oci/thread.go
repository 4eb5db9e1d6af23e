package oci

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs f on a thread of its own, which ends with it: what f does to the
// thread stays there. It is not the first one, which would not end, and whose
// namespaces are what /proc/self shows of this process.
func onThread(f func()) {
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
