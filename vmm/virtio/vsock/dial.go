package vsock

import (
	"context"
	"fmt"
	"net"
	"syscall"
)

// firstDialPort is where Dial begins to give host ports to its streams, well
// above those that are listened on by convention.
const firstDialPort = 1 << 30

// Dial opens a stream to a port of the guest (§5.10.6.4), and waits until the
// guest accepts it. Its error is a *net.OpError that wraps
//
//	ECONNREFUSED  nobody in the guest listens on the port
//	ECONNRESET    the guest's driver was reset, or answered nonsense
//	ENETDOWN      no driver of the guest is up
//	ENOBUFS       there are MaxConns streams
//	net.ErrClosed the device was closed
//
// or ctx's error, when that ended first: the guest did not answer.
func (d *Device) Dial(ctx context.Context, port uint32) (*Conn, error) {
	c, err := d.dial(ctx, port)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "vsock", Addr: Addr{d.cid, port}, Err: err}
	}
	return c, nil
}

func (d *Device) dial(ctx context.Context, port uint32) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, net.ErrClosed
	case d.act == nil:
		return nil, syscall.ENETDOWN
	case len(d.conns) >= MaxConns && !d.evict():
		return nil, syscall.ENOBUFS
	}
	c := newConn(d, key{host: d.freePort(port), guest: port})
	c.dialing, c.request = true, true
	d.conns[c.key] = c
	d.schedule(c)
	d.flush()
	defer context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		c.cond.Broadcast()
	})()
	for c.dialing {
		if c.err != nil {
			return nil, c.err
		}
		if err := ctx.Err(); err != nil {
			d.giveUp(c, err)
			return nil, fmt.Errorf("no answer from the guest: %w", err)
		}
		c.cond.Wait()
	}
	return c, nil // perhaps reset already: Read and Write say so
}

// freePort picks a host port for a stream to a port of the guest. There are far
// fewer streams and listeners than ports, so it ends.
func (d *Device) freePort(guest uint32) uint32 {
	for {
		port := firstDialPort + d.dialed%firstDialPort
		d.dialed++
		if d.conns[key{host: port, guest: guest}] == nil && d.listeners[port] == nil {
			return port
		}
	}
}

// giveUp forgets a stream that the host wants no more. The guest is told if it
// knows of it. Such answers are bounded although the guest may not take them:
// while one waits, no request goes out.
func (d *Device) giveUp(c *Conn, err error) {
	known := !c.request
	d.remove(c, err)
	if known && d.act != nil {
		d.replies = append(d.replies, c.header(opRst))
		d.flush()
	}
}

// evict makes room for a stream: the one that was closed here first, and that
// the guest, which was told, did not let go of, is reset.
func (d *Device) evict() bool {
	var oldest *Conn
	for _, c := range d.conns {
		if c.shutSent == shutBoth && (oldest == nil || int32(c.shutOrder-oldest.shutOrder) < 0) {
			oldest = c
		}
	}
	if oldest == nil || len(d.replies) >= maxReplies {
		return false
	}
	d.remove(oldest, syscall.ECONNRESET)
	d.replies = append(d.replies, oldest.header(opRst))
	return true
}
