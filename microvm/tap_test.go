package microvm

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// makeTAP makes a TAP interface with an address, for the test's time.
func makeTAP(t *testing.T, name, prefix string) {
	t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	ifreq := func() *unix.Ifreq {
		r, err := unix.NewIfreq(name)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	tun := ifreq()
	tun.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, tun); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 1); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil { // a TAP interface is open once
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if err := unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, tun); err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 0); err != nil {
			t.Error(err)
		}
	})
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(sock) }()
	p := netip.MustParsePrefix(prefix)
	addr, mask, up := ifreq(), ifreq(), ifreq()
	if err := errors.Join(addr.SetInet4Addr(p.Addr().AsSlice()), mask.SetInet4Addr(net.CIDRMask(p.Bits(), 32))); err != nil {
		t.Fatal(err)
	}
	up.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	for _, c := range []struct {
		req uint
		r   *unix.Ifreq
	}{{unix.SIOCSIFADDR, addr}, {unix.SIOCSIFNETMASK, mask}, {unix.SIOCSIFFLAGS, up}} {
		if err := unix.IoctlIfreq(sock, c.req, c.r); err != nil {
			t.Fatal(err)
		}
	}
}
