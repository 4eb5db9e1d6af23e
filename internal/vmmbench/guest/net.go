package main

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/duplex-run/duplex/internal/vmmbench"
)

const roundTrips = 700

// netSuite talks TCP with the driver, through eth0.
func netSuite() error {
	if err := vmmbench.AddressUp("eth0", vmmbench.GuestIP); err != nil {
		return err
	}
	return errors.Join(
		withConn(vmmbench.NetEcho, func(c net.Conn) error {
			if err := pingPong(c, 50); err != nil {
				return err
			}
			return measure("net.rr", func() (int64, int64, error) {
				return roundTrips, 2 * roundTrips * vmmbench.RoundTrip, pingPong(c, roundTrips)
			})
		}),
		withConn(vmmbench.NetSink, func(c net.Conn) error {
			return measure("net.send", func() (int64, int64, error) { return stream, vmmbench.StreamSize, send(c) })
		}),
		withConn(vmmbench.NetSource, func(c net.Conn) error {
			return measure("net.recv", func() (int64, int64, error) { return stream, vmmbench.StreamSize, receive(c) })
		}),
	)
}

// stream is the number of writes of a stream.
const stream = vmmbench.StreamSize / vmmbench.StreamWrite

// withConn calls f with a connection that does what mode says.
func withConn(mode byte, f func(net.Conn) error) error {
	d := net.Dialer{Timeout: 10 * time.Second}
	c, err := d.Dial("tcp", net.JoinHostPort(vmmbench.HostIP, vmmbench.NetPort))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte{mode}); err != nil {
		return err
	}
	return f(c)
}

func pingPong(c net.Conn, n int) error {
	var buf [vmmbench.RoundTrip]byte
	for range n {
		if _, err := c.Write(buf[:]); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, buf[:]); err != nil {
			return err
		}
	}
	return nil
}

// send ends when the host has it all.
func send(c net.Conn) error {
	buf := make([]byte, vmmbench.StreamWrite)
	for range stream {
		if _, err := c.Write(buf); err != nil {
			return err
		}
	}
	_, err := io.ReadFull(c, buf[:1])
	return err
}

// receive asks for the stream, and reads it.
func receive(c net.Conn) error {
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	buf := make([]byte, vmmbench.StreamWrite)
	for left := int64(vmmbench.StreamSize); left > 0; {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}
