package vsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// carrySize is how much is carried at once, in bytes.
const carrySize = 32 << 10

var carryBuffers = sync.Pool{New: func() any { return new([carrySize]byte) }}

// readConnect reads "CONNECT PORT\n" and not a byte more.
func readConnect(r io.Reader) (port uint32, err error) {
	var line [MaxLine]byte
	for n := range line {
		if _, err := io.ReadFull(r, line[n:n+1]); err != nil {
			return 0, err
		}
		if line[n] == '\n' {
			return parseConnect(string(line[:n]))
		}
	}
	return 0, errors.New("the line is too long")
}

func parseConnect(line string) (port uint32, err error) {
	word, number, _ := strings.Cut(line, " ")
	if !strings.EqualFold(word, "CONNECT") {
		return 0, fmt.Errorf("bad line %q", line)
	}
	n, err := strconv.ParseUint(number, 10, 32)
	return uint32(n), err
}

// half is what can be closed in one direction; *Conn and *net.UnixConn are.
type half interface {
	CloseRead() error
	CloseWrite() error
}

// carry carries both directions of a stream between the guest and the host,
// until both ended, one broke, or the Bridge is closed.
func (b *Bridge) carry(c *Conn, u net.Conn) {
	end := func() {
		_ = u.Close()
		_ = c.Close()
	}
	defer end()
	defer context.AfterFunc(b.ctx, end)()
	fromHost := make(chan struct{})
	go func() {
		defer close(fromHost)
		if !pump(c, u) {
			end()
		}
	}()
	if pump(u, c) {
		// The host may have more to say, while the guest is there to hear it.
		select {
		case <-c.gone:
		case <-fromHost:
		}
	}
	end()
	<-fromHost
}

// pump carries from src to dst until one of them ends, which it tells the other,
// or breaks: then it is false.
func pump(dst, src net.Conn) bool {
	buf := carryBuffers.Get().(*[carrySize]byte)
	defer carryBuffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return closeHalf(src, half.CloseRead)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return closeHalf(dst, half.CloseWrite)
		case err != nil:
			return false
		}
	}
}

// closeHalf is false where that cannot be done: all has to be closed.
func closeHalf(c net.Conn, do func(half) error) bool {
	h, ok := c.(half)
	return ok && do(h) == nil
}
