package vsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// MaxLine bounds the line that a client of a Bridge sends, in bytes.
	MaxLine = 32
	// LineTimeout bounds how long a client may take to send it.
	LineTimeout = 5 * time.Second
	// AnswerTimeout bounds how long the guest may take to accept a stream.
	AnswerTimeout = 10 * time.Second

	acceptPause = 20 * time.Millisecond // after Accept failed, as without descriptors
)

// Bridge carries streams between the guest and Unix sockets, in Firecracker's
// convention:
//
//   - A client on the host connects to the socket PATH and writes "CONNECT PORT\n".
//     When a program in the guest accepts the stream on that port, the client
//     reads "OK HOSTPORT\n", and the stream follows. Otherwise the connection is
//     closed.
//   - A program in the guest that connects to port P of the host (CID 2) reaches
//     the socket PATH_P, unless Listen was called for P. When nobody listens
//     there, it is refused.
//
// Half-close goes through in both directions. At most MaxConns clients and
// streams are served at once; further ones are refused.
type Bridge struct {
	dev    *Device
	host   net.Listener
	guest  *Listener
	dial   func(ctx context.Context, port uint32) (net.Conn, error)
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{} // one a client or stream
	wg     sync.WaitGroup

	closing sync.Once
	err     error // of Close
}

// Bridge listens on the Unix socket path and serves until Close, which removes
// the socket. What exists at path already is an error, except a socket that
// nobody listens on, as a crashed process leaves it: that is replaced. Whoever
// may write to the socket reaches the guest: the directory's permissions say who.
func (d *Device) Bridge(path string) (*Bridge, error) {
	l, err := ListenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("vsock: %w", err)
	}
	return NewBridge(d, l, func(ctx context.Context, port uint32) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", fmt.Sprintf("%s_%d", path, port))
	})
}

// NewBridge is Device.Bridge for a process that may not open sockets by path:
// host is where clients come in, and dial connects to what PATH_P stands for; it
// must end when its context does. A device has one Bridge at a time. The Bridge
// closes host, also when NewBridge fails.
//
// Connections of both that have CloseRead and CloseWrite, as *net.UnixConn does,
// are half-closed; others are closed when one direction ends.
func NewBridge(d *Device, host net.Listener, dial func(ctx context.Context, port uint32) (net.Conn, error)) (*Bridge, error) {
	guest, err := d.listenAny()
	if err != nil {
		return nil, fmt.Errorf("vsock: bridge to %s: %w", host.Addr(), errors.Join(err, host.Close()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &Bridge{dev: d, host: host, guest: guest, dial: dial, ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, MaxConns)}
	b.wg.Go(b.serveHost)
	b.wg.Go(b.serveGuest)
	return b, nil
}

// Close ends all streams of the Bridge and removes the socket. When it returns
// nothing of the Bridge runs any more. It is idempotent.
func (b *Bridge) Close() error {
	b.closing.Do(func() {
		b.cancel()
		b.err = errors.Join(b.host.Close(), b.guest.Close())
		b.wg.Wait()
	})
	return b.err
}

// ListenUnix listens on path, in place of a socket that nobody listens on, for
// NewBridge.
func ListenUnix(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	if st, statErr := os.Lstat(path); statErr != nil || st.Mode().Type() != fs.ModeSocket {
		return nil, err
	}
	c, dialErr := net.Dial("unix", path)
	if dialErr == nil {
		_ = c.Close()
	}
	if !errors.Is(dialErr, syscall.ECONNREFUSED) {
		return nil, err // somebody listens
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return net.Listen("unix", path)
}

// serveHost takes clients until the listener is closed.
func (b *Bridge) serveHost() {
	for {
		u, err := b.host.Accept()
		switch {
		case b.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if err == nil {
				_ = u.Close()
			}
			return
		case err != nil:
			b.pause()
		case !b.take():
			_ = u.Close()
		default:
			b.wg.Go(func() {
				defer b.release()
				defer u.Close()
				b.client(u)
			})
		}
	}
}

// pause waits after a failure that may pass.
func (b *Bridge) pause() {
	select {
	case <-time.After(acceptPause):
	case <-b.ctx.Done():
	}
}

// take takes a slot, if there is one.
func (b *Bridge) take() bool {
	select {
	case b.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (b *Bridge) release() { <-b.slots }

// client serves a client on the host: its line, the guest's answer, the stream.
func (b *Bridge) client(u net.Conn) {
	defer context.AfterFunc(b.ctx, func() { _ = u.Close() })()
	_ = u.SetDeadline(time.Now().Add(LineTimeout))
	port, err := readConnect(u)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, AnswerTimeout)
	defer cancel()
	c, err := b.dev.Dial(ctx, port)
	if err != nil {
		return
	}
	defer c.Close()
	ok := fmt.Appendf(nil, "OK %d\n", c.key.host)
	_ = u.SetDeadline(time.Now().Add(LineTimeout))
	if _, err := u.Write(ok); err != nil || u.SetDeadline(time.Time{}) != nil {
		return
	}
	b.carry(c, u)
}

// serveGuest takes streams that the guest opens until the device or the Bridge
// is closed.
func (b *Bridge) serveGuest() {
	for {
		c, err := b.guest.AcceptConn()
		if err != nil {
			return
		}
		if !b.take() {
			c.refuse()
			continue
		}
		b.wg.Go(func() {
			defer b.release()
			b.stream(c)
		})
	}
}

// stream serves a stream that the guest opens.
func (b *Bridge) stream(c *Conn) {
	u, err := b.dial(b.ctx, c.key.host)
	if err != nil {
		c.refuse()
		return
	}
	defer u.Close()
	if c.admit() != nil {
		return
	}
	defer c.Close()
	b.carry(c, u)
}
