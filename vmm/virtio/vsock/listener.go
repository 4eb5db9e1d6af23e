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

// listenAny takes streams to all ports that have no listener. Its streams are
// not open: the guest waits for admit or refuse.
func (d *Device) listenAny() (*Listener, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, net.ErrClosed
	case d.anyPort != nil:
		return nil, syscall.EADDRINUSE
	}
	const portAny = 1<<32 - 1 // VMADDR_PORT_ANY
	d.anyPort = &Listener{dev: d, port: portAny, cond: sync.NewCond(&d.mu)}
	return d.anyPort, nil
}

// admit opens a stream of listenAny. It fails when the guest gave up.
func (c *Conn) admit() error {
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.pending, c.respond = false, true
	c.dev.schedule(c)
	c.dev.flush()
	return nil
}

// refuse ends a stream of listenAny that was not admitted.
func (c *Conn) refuse() {
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	if c.err == nil {
		c.dev.giveUp(c, net.ErrClosed)
	}
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
	if l.dev.anyPort == l {
		l.dev.anyPort = nil
	} else {
		delete(l.dev.listeners, l.port)
	}
	for _, c := range l.backlog {
		if c.pending {
			l.dev.giveUp(c, net.ErrClosed)
			continue
		}
		c.shut = shutBoth
		c.dropRing()
		l.dev.schedule(c)
	}
	l.backlog = nil
	l.cond.Broadcast()
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return Addr{HostCID, l.port} }
