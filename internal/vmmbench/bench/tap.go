package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/vmmbench"
)

// makeTap makes a TAP interface that stays, for one monitor after the other.
func makeTap() error {
	if err := os.MkdirAll("/dev/net", 0o755); err != nil {
		return err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	r, err := unix.NewIfreq(tapName)
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
		return fmt.Errorf("make %s: %w", tapName, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("keep %s: %w", tapName, err)
	}
	return vmmbench.AddressUp(tapName, vmmbench.HostIP)
}

// serveNet is the host's end of the net suite.
func serveNet() error {
	l, err := net.Listen("tcp", net.JoinHostPort(vmmbench.HostIP, vmmbench.NetPort))
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				if err := serveConn(c); err != nil {
					fmt.Fprintln(os.Stderr, "bench: host's end:", err)
				}
			}()
		}
	}()
	return nil
}

func serveConn(c net.Conn) error {
	buf := make([]byte, vmmbench.StreamWrite)
	if _, err := io.ReadFull(c, buf[:1]); err != nil {
		return err
	}
	switch buf[0] {
	case vmmbench.NetEcho:
		return echo(c, buf[:vmmbench.RoundTrip])
	case vmmbench.NetSink:
		for left := int64(vmmbench.StreamSize); left > 0; {
			n, err := c.Read(buf)
			if err != nil {
				return err
			}
			left -= int64(n)
		}
		_, err := c.Write(buf[:1])
		return err
	case vmmbench.NetSource:
		if _, err := io.ReadFull(c, buf[:1]); err != nil { // the guest is ready
			return err
		}
		for range vmmbench.StreamSize / vmmbench.StreamWrite {
			if _, err := c.Write(buf); err != nil {
				return err
			}
		}
		_, err := c.Read(buf[:1]) // until the guest has read it all and closes
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	}
	return errors.New("unknown mode")
}

func echo(c net.Conn, buf []byte) error {
	for {
		if _, err := io.ReadFull(c, buf); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if _, err := c.Write(buf); err != nil {
			return err
		}
	}
}
