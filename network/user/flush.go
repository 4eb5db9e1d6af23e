package user

import (
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
)

const (
	// flushStep is how often Flush looks, and flushIdle how often in a row there
	// must be nothing: what was read last is being written then.
	flushStep = time.Millisecond
	flushIdle = 5
)

// Flush waits, for limit at most, until what the guest sent has gone to the host's
// sockets: a guest that is gone may have sent just before.
func (s *Stack) Flush(limit time.Duration) {
	deadline := time.Now().Add(limit)
	for idle := 0; idle < flushIdle && time.Now().Before(deadline); time.Sleep(flushStep) {
		if idle++; s.pending() {
			idle = 0
		}
	}
}

// pending says whether frames wait to be read, or data in connections.
func (s *Stack) pending() bool {
	if s.link.readable() || s.link.busy.Load() {
		return true
	}
	for _, t := range s.ip.RegisteredEndpoints() {
		ep, ok := t.(tcpip.Endpoint)
		if !ok {
			continue
		}
		if n, err := ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption); err == nil && n > 0 {
			return true
		}
	}
	return false
}

// readable says whether the device has sent what was not read yet.
func (l *link) readable() (yes bool) {
	l.mu.RLock()
	f := l.f
	l.mu.RUnlock()
	if f == nil {
		return false
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	_ = conn.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		yes = err == nil && n > 0 && p[0].Revents == unix.POLLIN
	})
	return yes
}
