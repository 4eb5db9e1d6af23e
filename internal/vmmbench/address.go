package vmmbench

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// AddressUp gives an interface an address in a /24 network and brings it up.
func AddressUp(name, address string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	ip := netip.MustParseAddr(address).As4()
	mask := binary.BigEndian.AppendUint32(nil, 0xffffff00)
	for _, step := range []struct {
		what string
		req  uint
		set  func(*unix.Ifreq) error
	}{
		{"set the address", unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(ip[:]) }},
		{"set the netmask", unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr(mask) }},
		{"bring up", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }},
	} {
		r, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := step.set(r); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, step.req, r); err != nil {
			return fmt.Errorf("%s %s: %w", step.what, name, err)
		}
	}
	return nil
}
