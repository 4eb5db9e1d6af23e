package inside

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/netif"
)

// network sets up what is in the container's network namespace. The host's /dev
// has to be there still.
func (b *builder) network() error {
	n := &b.setup.Network
	if n.Shared {
		return nil
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	if n.TAP {
		if err := b.makeTAP(); err != nil {
			return err
		}
	}
	if n.Config == nil {
		return nil
	}
	index, err := interfaceIndex(handshake.NetworkDevice)
	if err != nil {
		return fmt.Errorf("find %s: %w", handshake.NetworkDevice, err)
	}
	return netif.Configure(index, n.Config)
}

// makeTAP makes the interface and sends its other end to duplex, whose stack is
// the network behind it.
func (b *builder) makeTAP() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return &handshake.StepError{Step: handshake.StepTUN, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq(handshake.NetworkDevice)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fmt.Errorf("make a TAP device: %w", err)
	}
	return b.conn.SendFile(handshake.Message{Kind: handshake.KindNetwork}, fd)
}

func interfaceIndex(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, err
	}
	return int(ifr.Uint32()), nil
}

// writeNames replaces /etc/hosts and /etc/resolv.conf in the container's own
// layer, before volumes are mounted: those are the host's files.
func (b *builder) writeNames() error {
	n := &b.setup.Network
	if n.Hosts == "" && n.Resolv == "" {
		return nil
	}
	etc, err := launch.MountPoint(b.root, "/etc", true)
	if err != nil {
		return err
	}
	defer func() { _ = etc.Close() }()
	for name, text := range map[string]string{"hosts": n.Hosts, "resolv.conf": n.Resolv} {
		if text == "" {
			continue
		}
		if err := replaceIn(etc, name, text); err != nil {
			return fmt.Errorf("write /etc/%s: %w", name, err)
		}
	}
	return nil
}

// replaceIn writes a file in the place of whatever is there: images have links to
// what a running system would make.
func replaceIn(dir *os.File, name, text string) error {
	at := int(dir.Fd())
	if err := unix.Unlinkat(at, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	fd, err := unix.Openat(at, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// loopbackUp sets IFF_UP; the kernel adds 127.0.0.1 and ::1 by itself.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil // a kernel without IPv4 has no loopback to bring up
	}
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
