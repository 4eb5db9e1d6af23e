package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// configure gives an interface an address with a prefix, brings it up and makes
// gateway, if there is one, its default route.
func configure(name, prefix, gateway string) error {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	set := func(req uint, addr netip.Addr) error {
		r, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := r.SetInet4Addr(addr.AsSlice()); err != nil {
			return err
		}
		return unix.IoctlIfreq(fd, req, r)
	}
	mask := net.CIDRMask(p.Bits(), 32)
	up, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	up.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	maskAddr, _ := netip.AddrFromSlice(mask)
	if err := errors.Join(set(unix.SIOCSIFADDR, p.Addr()), set(unix.SIOCSIFNETMASK, maskAddr), unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up)); err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	if gateway == "" {
		return nil
	}
	g, err := netip.ParseAddr(gateway)
	if err != nil {
		return err
	}
	return defaultRoute(name, g)
}

// talk sends 1 MiB to a TCP server that sends it back, and a datagram to the same
// port by UDP.
func talk(peer string) error {
	c, err := await(func() (net.Conn, error) { return net.DialTimeout("tcp4", peer, patience) })
	if err != nil {
		return err
	}
	sent := make([]byte, 1<<20)
	for i := range sent {
		sent[i] = byte(i * 7)
	}
	go func() { _, _ = c.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("tcp: %w", err)
	}
	for i := range got {
		if got[i] != sent[i] {
			return fmt.Errorf("tcp: byte %d came back changed", i)
		}
	}
	u, err := net.Dial("udp4", peer)
	if err != nil {
		return err
	}
	buf := make([]byte, 64)
	_, err = await(func() (int, error) {
		if _, err := u.Write([]byte("ping")); err != nil {
			return 0, err
		}
		_ = u.SetReadDeadline(time.Now().Add(time.Second))
		n, err := u.Read(buf)
		if err == nil && string(buf[:n]) != "ping" {
			err = fmt.Errorf("got %q", buf[:n])
		}
		return n, err
	})
	if err != nil {
		return fmt.Errorf("udp: %w", err)
	}
	fmt.Println("bare: talked to", peer)
	return nil
}

// sockets serves echoes on vsock port 5000 once, and talks to port 6000 of the
// host.
func sockets() error {
	listener, err := await(func() (int, error) { return unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) })
	if err != nil {
		return err
	}
	if err := unix.Bind(listener, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: 5000}); err != nil {
		return err
	}
	if err := unix.Listen(listener, 8); err != nil {
		return err
	}
	fmt.Println("bare: ready")
	conn, _, err := unix.Accept(listener)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(conn), "vsock")
	if _, err := io.Copy(in, in); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	if err := unix.Shutdown(conn, unix.SHUT_WR); err != nil {
		return err
	}
	out, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(out, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: 6000}); err != nil {
		return fmt.Errorf("connect to the host: %w", err)
	}
	f := os.NewFile(uintptr(out), "vsock")
	if _, err := f.WriteString("from the guest"); err != nil {
		return err
	}
	if err := unix.Shutdown(out, unix.SHUT_WR); err != nil {
		return err
	}
	answer, err := io.ReadAll(f)
	if err != nil || string(answer) != "from the host" {
		return fmt.Errorf("the host answered %q, %v", answer, err)
	}
	refused, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(refused, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: 6001}); !errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("connect to a port nobody listens on: %v", err)
	}
	return nil
}
