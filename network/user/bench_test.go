package user

import (
	"io"
	"net"
	"testing"
)

// BenchmarkTCP is a stream through the stack, from another stack in the place of
// the guest's kernel, and back: what is measured is both of them.
func BenchmarkTCP(b *testing.B) {
	for _, c := range []struct {
		name string
		up   bool
	}{{"up", true}, {"down", false}} {
		b.Run(c.name, func(b *testing.B) {
			const chunk = 1 << 20
			host := make(chan *net.TCPConn, 1)
			hold := make(chan struct{})
			g := start(b, Config{HostLoopback: true}, allOffloads)
			guest, err := g.dial(g.gateway(hostTCP(b, func(c *net.TCPConn) { host <- c; <-hold })))
			if err != nil {
				b.Fatal(err)
			}
			defer close(hold)
			var from, to net.Conn = guest, <-host
			if !c.up {
				from, to = to, from
			}
			buf := make([]byte, chunk)
			b.SetBytes(chunk)
			for b.Loop() {
				go func() { _, _ = from.Write(buf) }()
				if n, err := io.CopyN(io.Discard, to, chunk); err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}
