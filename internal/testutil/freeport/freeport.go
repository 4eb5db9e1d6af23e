// Package freeport finds ports for tests to publish.
package freeport

import (
	"errors"
	"net"
	"testing"
)

// On is a port of the loopback address that nobody listens on; network is tcp or
// udp.
func On(t testing.TB, network string) string {
	t.Helper()
	const any = "127.0.0.1:0"
	var text string
	var err error
	if network == "udp" {
		var c net.PacketConn
		if c, err = net.ListenPacket(network, any); err == nil {
			text, err = c.LocalAddr().String(), c.Close()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen(network, any); err == nil {
			text, err = l.Addr().String(), l.Close()
		}
	}
	_, port, perr := net.SplitHostPort(text)
	if err = errors.Join(err, perr); err != nil {
		t.Fatal(err)
	}
	return port
}
