package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Stream is one end of a connection whose directions end apart.
type Stream interface {
	io.Reader
	io.Writer
	CloseWrite() error
}

// Relay copies between both until both directions have ended. abort is called,
// once, when one of them breaks: it must end both ends at once.
func Relay(a, b Stream, abort func()) {
	var once sync.Once
	carry := func(dst, src Stream) {
		if _, err := io.Copy(dst, src); err != nil || dst.CloseWrite() != nil {
			once.Do(abort)
		}
	}
	var other sync.WaitGroup
	other.Go(func() { carry(b, a) })
	carry(a, b)
	other.Wait()
}

// Reset ends a connection with a RST.
func Reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

const (
	// udpIdle ends a flow without datagrams, as NATs do (RFC 4787, REQ-5, asks for
	// two minutes at least).
	udpIdle = 2 * time.Minute
	// Datagram bounds one, in bytes.
	Datagram = 64 << 10
	// maxErrors bounds the failures in a row of a flow's socket: each is an ICMP
	// message that came back, or a datagram that could not be sent.
	maxErrors = 32
)

// RelayUDP copies datagrams both ways until there were none for a while, and
// closes both.
func RelayUDP(a, b net.Conn) {
	busy := new(atomic.Bool)
	end := endWhenIdle(busy, a, b)
	defer end()
	var other sync.WaitGroup
	other.Go(func() { copyDatagrams(a, b, busy); end() })
	copyDatagrams(b, a, busy)
	end()
	other.Wait()
}

// endWhenIdle closes c when busy was not set for udpIdle, or when it is called.
func endWhenIdle(busy *atomic.Bool, c ...io.Closer) (end func()) {
	var timer *time.Timer
	var mu sync.Mutex // timer is set when its function runs
	closeAll := sync.OnceFunc(func() {
		for _, c := range c {
			_ = c.Close()
		}
	})
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(udpIdle, func() {
		mu.Lock()
		defer mu.Unlock()
		if busy.Swap(false) {
			timer.Reset(udpIdle)
			return
		}
		closeAll()
	})
	return func() {
		timer.Stop()
		closeAll()
	}
}

func copyDatagrams(dst io.Writer, src io.Reader, busy *atomic.Bool) {
	buf := make([]byte, Datagram)
	for failed := 0; failed < maxErrors; {
		n, err := src.Read(buf)
		if err == nil {
			busy.Store(true)
			_, err = dst.Write(buf[:n])
		}
		switch {
		case err == nil:
			failed = 0
		case err == io.EOF, errors.Is(err, net.ErrClosed):
			return
		default:
			failed++
		}
	}
}
