package net

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Why a TAP device cannot be used.
var (
	// ErrNoTun: the host has no /dev/net/tun.
	ErrNoTun = errors.New("no /dev/net/tun: load the tun module, or give the container the device")
	// ErrNoTAP: there is no such interface. Making one needs CAP_NET_ADMIN.
	ErrNoTAP = errors.New("no such network interface")
	// ErrNotTAP: the interface, or the descriptor, is no TAP device.
	ErrNotTAP = errors.New("not a TAP device")
	// ErrTAPOwner: the TAP device is another user's.
	ErrTAPOwner = errors.New("the TAP device belongs to another user, and this one has no CAP_NET_ADMIN")
	// ErrTAPBusy: another process has the TAP device open.
	ErrTAPBusy = errors.New("the TAP device is in use")
)

const (
	tunPath = "/dev/net/tun"
	// tapFlags: frames without packet information, each after a virtio_net_hdr.
	tapFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
)

// TAP is a Backend on a TAP device (Linux Documentation/networking/tuntap.rst).
type TAP struct {
	f    *os.File
	name string
}

// OpenTAP opens the existing TAP device with that name. This needs no privilege
// when the device is the user's own, as one is that was made by
//
//	ip tuntap add dev NAME mode tap user USER
//
// and CAP_NET_ADMIN in the device's user namespace otherwise. Errors wrap one of
// the ErrTAP family, or a syscall.Errno.
func OpenTAP(name string) (*TAP, error) {
	t, err := openTAP(name)
	if err != nil {
		return nil, fmt.Errorf("open TAP device %q: %w", name, err)
	}
	return t, nil
}

func openTAP(name string) (*TAP, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil || name == "" {
		return nil, fmt.Errorf("%w: a name has 1 to %d bytes", ErrNoTAP, unix.IFNAMSIZ-1)
	}
	if err := interfaceExists(name); err != nil {
		return nil, err
	}
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == unix.ENXIO, err == unix.ENODEV:
		return nil, ErrNoTun
	case err != nil:
		return nil, fmt.Errorf("%s: %w: add the user to its group, or change its mode", tunPath, err)
	}
	if err := attachTAP(fd, ifr); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return newTAP(fd, name)
}

// interfaceExists keeps TUNSETIFF from making an interface that nobody set up.
func interfaceExists(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr) == unix.ENODEV {
		return fmt.Errorf("%w; make it with: ip tuntap add dev %s mode tap user $USER", ErrNoTAP, name)
	}
	return nil // the others show later
}

func attachTAP(fd int, ifr *unix.Ifreq) error {
	ifr.SetUint16(tapFlags)
	err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	if err == unix.EINVAL { // a device of several queues wants to hear of it
		ifr.SetUint16(tapFlags | unix.IFF_MULTI_QUEUE)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	switch err {
	case unix.EINVAL:
		return ErrNotTAP
	case unix.EPERM:
		return ErrTAPOwner
	case unix.EBUSY:
		return ErrTAPBusy
	}
	return err
}

// NewTAP takes over an open descriptor that is attached to a TAP device with
// IFF_NO_PI and IFF_VNET_HDR, such as one that a supervisor passed in. f is
// closed on error too.
func NewTAP(f *os.File) (*TAP, error) {
	defer func() { _ = f.Close() }()
	own, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("TAP descriptor: %w", err)
	}
	ifr, err := unix.NewIfreq("")
	if err == nil {
		err = unix.IoctlIfreq(own, unix.TUNGETIFF, ifr)
	}
	if err == nil {
		err = unix.SetNonblock(own, true)
	}
	if err != nil || ifr.Uint16()&tapFlags != tapFlags {
		_ = unix.Close(own)
		return nil, fmt.Errorf("TAP descriptor: %w with IFF_NO_PI and IFF_VNET_HDR: %v", ErrNotTAP, err)
	}
	return newTAP(own, ifr.Name())
}

// newTAP takes over fd, attached and non-blocking.
func newTAP(fd int, name string) (*TAP, error) {
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, HeaderLen); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set the header size of TAP device %q: %w", name, err)
	}
	t := &TAP{f: os.NewFile(uintptr(fd), tunPath), name: name}
	err := t.f.SetDeadline(time.Time{}) // fails when the poller does not have it
	if err == nil {
		err = t.SetOffloads(0)
	}
	if err != nil {
		_ = t.f.Close()
		return nil, err
	}
	return t, nil
}

// Name is the interface's name.
func (t *TAP) Name() string { return t.name }

// MTU is the interface's, for Options.MTU: the guest's must not be larger.
func (t *TAP) MTU() (uint16, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq(t.name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFMTU, ifr)
	}
	if err != nil {
		return 0, fmt.Errorf("read the MTU of TAP device %q: %w", t.name, err)
	}
	return uint16(min(ifr.Uint32(), 65535)), nil
}

// Offloads implements Backend.
func (t *TAP) Offloads() uint64 { return allOffloads }

// SetOffloads implements Backend: the kernel segments and checksums what it
// sends to the device only as far as the guest does not.
func (t *TAP) SetOffloads(features uint64) error {
	var flags int
	for feature, flag := range map[uint64]int{
		FeatureGuestCsum: unix.TUN_F_CSUM,
		FeatureGuestTSO4: unix.TUN_F_TSO4,
		FeatureGuestTSO6: unix.TUN_F_TSO6,
	} {
		if features&feature != 0 {
			flags |= flag
		}
	}
	conn, err := t.f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := conn.Control(func(fd uintptr) {
		err = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, flags)
	}); cerr != nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("set the offloads of TAP device %q: %w", t.name, err)
	}
	return nil
}

// File implements Backend.
func (t *TAP) File() *os.File { return t.f }

// Close implements Backend.
func (t *TAP) Close() error { return t.f.Close() }
