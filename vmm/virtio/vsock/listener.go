package vsock

import (
	"fmt"
	"net"
	"sync"
	"syscall"
)

// Listener takes streams that the guest opens to one port of the host. It is a
// net.Listener whose methods may be called from several goroutines.
type Listener struct {
	dev  *Device
	port uint32

	// Guarded by dev.mu.
	cond    *sync.Cond
	backlog []*Conn
	closed  bool
}

var _ net.Listener = (*Listener)(nil)

// Listen takes streams to port from now on, also before the guest is up.
func (d *Device) Listen(port uint32) (*Listener, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, fmt.Errorf("vsock: listen on port %d: %w", port, net.ErrClosed)
	case d.listeners[port] != nil:
		return nil, fmt.Errorf("vsock: listen on port %d: %w", port, syscall.EADDRINUSE)
	}
	l := &Listener{dev: d, port: port, cond: sync.NewCond(&d.mu)}
	d.listeners[port] = l
	return l, nil
}

// Accept implements net.Listener. The stream is a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn waits for the next stream, or for Close: net.ErrClosed.
func (l *Listener) AcceptConn() (*Conn, error) {
	l.dev.mu.Lock()
	defer l.dev.mu.Unlock()
	for len(l.backlog) == 0 {
		if l.closed {
			return nil, &net.OpError{Op: "accept", Net: "vsock", Addr: l.Addr(), Err: net.ErrClosed}
		}
		l.cond.Wait()
	}
	c := l.backlog[0]
	l.backlog = l.backlog[1:]
	return c, nil
}

// Close implements net.Listener: later streams to the port are refused, and
// those that nobody accepted are shut down. It is idempotent.
func (l *Listener) Close() error {
	l.dev.mu.Lock()
	defer l.dev.mu.Unlock()
	l.closeLocked()
	l.dev.flush()
	return nil
}

func (l *Listener) closeLocked() {
	if l.closed {
		return
	}
	l.closed = true
	delete(l.dev.listeners, l.port)
	for _, c := range l.backlog {
		c.shut = shutBoth
		l.dev.schedule(c)
	}
	l.backlog = nil
	l.cond.Broadcast()
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return Addr{HostCID, l.port} }
