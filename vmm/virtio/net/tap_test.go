package net_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	stdnet "net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/net"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

const inside = "DUPLEX_TEST_NETNS"

// namespace runs the test in a process with its own user and network namespace,
// where it may make TAP devices, and returns false outside.
func namespace(t *testing.T) bool {
	if os.Getenv(inside) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a network namespace: %v\n%s", err, out)
	}
	return false
}

func ioctl(t *testing.T, req uint, ifr *unix.Ifreq) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.IoctlIfreq(fd, req, ifr); err != nil {
		t.Fatalf("ioctl %#x: %v", req, err)
	}
}

func ifreq(t *testing.T, name string) *unix.Ifreq {
	t.Helper()
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	return ifr
}

// makeTAP makes a persistent device, as `ip tuntap add` does.
func makeTAP(t *testing.T, name string, flags uint16) {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	ifr := ifreq(t, name)
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		t.Fatal(err)
	}
}

var (
	hostIP  = netip.MustParseAddr("10.9.8.1")
	guestIP = netip.MustParseAddr("10.9.8.2")
)

// up gives the interface its address and waits for its carrier.
func up(t *testing.T, name string) {
	t.Helper()
	addr := ifreq(t, name)
	if err := addr.SetInet4Addr(hostIP.AsSlice()); err != nil {
		t.Fatal(err)
	}
	ioctl(t, unix.SIOCSIFADDR, addr)
	mask := ifreq(t, name)
	if err := mask.SetInet4Addr([]byte{255, 255, 255, 0}); err != nil {
		t.Fatal(err)
	}
	ioctl(t, unix.SIOCSIFNETMASK, mask)
	flags := ifreq(t, name)
	flags.SetUint16(unix.IFF_UP)
	ioctl(t, unix.SIOCSIFFLAGS, flags)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		ioctl(t, unix.SIOCGIFFLAGS, flags)
		if flags.Uint16()&unix.IFF_RUNNING != 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no carrier")
		}
	}
}

// guest is a small network stack on the mock driver.
type guest struct {
	t    *testing.T
	d    *v.Driver
	mac  [6]byte
	bufs map[uint16]v.Buf
}

func (g *guest) send(h net.Header, frame []byte) {
	g.t.Helper()
	g.d.Ring(tx).Add(g.d.Out(packet(h, frame)))
	g.d.Kick(tx)
	g.d.Ring(tx).Wait()
}

// next returns the next packet that is not about addresses; it answers ARP.
func (g *guest) next() (net.Header, []byte) {
	g.t.Helper()
	for {
		h, f := received(g.t, g.d, g.bufs)
		for head, b := range offer(g.d, int(h.NumBuffers), 1536) {
			g.bufs[head] = b
		}
		switch kind := binary.BigEndian.Uint16(f[12:]); {
		case kind == 0x0806 && f[21] == 1: // ARP request
			g.send(net.Header{}, g.arp(2, f[6:12], f[28:32]))
		case kind == 0x0800:
			return h, f
		}
	}
}

func (g *guest) arp(op byte, mac, ip []byte) []byte {
	p := append(append(append([]byte{}, mac...), g.mac[:]...), 8, 6, 0, 1, 8, 0, 6, 4, 0, op)
	p = append(append(p, g.mac[:]...), guestIP.AsSlice()...)
	return append(append(p, mac...), ip...)
}

// udp is a frame to the host whose checksum is left to the device.
func (g *guest) udp(to []byte, port uint16, data []byte) (net.Header, []byte) {
	be := binary.BigEndian
	n := 8 + len(data)
	p := append(append(append([]byte{}, to...), g.mac[:]...), 8, 0)
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0}
	be.PutUint16(ip[2:], uint16(20+n))
	ip = append(append(ip, guestIP.AsSlice()...), hostIP.AsSlice()...)
	be.PutUint16(ip[10:], ^sum(ip))
	u := be.AppendUint16(nil, 4000)
	u = be.AppendUint16(u, port)
	u = be.AppendUint16(u, uint16(n))
	pseudo := be.AppendUint16(append(append([]byte{}, ip[12:20]...), 0, 17), uint16(n))
	u = append(be.AppendUint16(u, sum(pseudo)), data...)
	return net.Header{Flags: net.NeedsCsum, CsumStart: 34, CsumOffset: 6}, append(append(p, ip...), u...)
}

// sum is the internet checksum of p, not complemented (RFC 1071).
func sum(p []byte) uint16 {
	var s uint32
	for i, b := range p {
		s += uint32(b) << (8 * (1 - i%2))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// A datagram to the host's kernel and one back, both with checksums offloaded.
func TestTAP(t *testing.T) {
	if !namespace(t) {
		return
	}
	makeTAP(t, "tap7", unix.IFF_TAP|unix.IFF_NO_PI)
	tap, err := net.OpenTAP("tap7")
	if err != nil {
		t.Fatal(err)
	}
	up(t, "tap7")
	mtu := ifreq(t, "tap7")
	mtu.SetUint32(1400)
	ioctl(t, unix.SIOCSIFMTU, mtu)
	if n, err := tap.MTU(); n != 1400 || err != nil {
		t.Errorf("MTU %d, %v", n, err)
	}
	mac := net.RandomMAC()
	dev, err := net.New(net.Options{Backend: tap, MAC: mac})
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, d: v.Start(t, dev), mac: mac}
	iface, err := stdnet.InterfaceByName("tap7")
	if err != nil {
		t.Fatal(err)
	}
	c, err := stdnet.ListenUDP("udp4", &stdnet.UDPAddr{IP: hostIP.AsSlice()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	port := c.LocalAddr().(*stdnet.UDPAddr).Port
	for round := range 3 { // the device comes up again after a reset
		if round > 0 {
			g.d.Init()
		}
		g.bufs = offer(g.d, 64, 1536)
		g.send(g.udp(iface.HardwareAddr, uint16(port), []byte("to the host")))
		buf := make([]byte, 100)
		n, from, err := c.ReadFromUDP(buf)
		if err != nil || string(buf[:n]) != "to the host" {
			t.Fatalf("read %q, %v", buf[:n], err)
		}
		if _, err := c.WriteToUDP([]byte("to the guest"), from); err != nil {
			t.Fatal(err)
		}
		h, f := g.next()
		if !bytes.HasSuffix(f, []byte("to the guest")) || h.Flags != net.NeedsCsum || h.CsumStart != 34 || h.CsumOffset != 6 {
			t.Errorf("got %+v, %q", h, f)
		}
	}
}

func TestOpenTAPRefuses(t *testing.T) {
	if !namespace(t) {
		return
	}
	makeTAP(t, "tap0", unix.IFF_TAP|unix.IFF_NO_PI)
	makeTAP(t, "tun0", unix.IFF_TUN|unix.IFF_NO_PI)
	makeTAP(t, "many0", unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_MULTI_QUEUE)
	for _, name := range []string{"tap0", "many0"} {
		tap, err := net.OpenTAP(name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "tap0" {
			if _, err := net.OpenTAP(name); !errors.Is(err, net.ErrTAPBusy) {
				t.Errorf("open %s twice: %v", name, err)
			}
		}
		if err := tap.Close(); err != nil {
			t.Error(err)
		}
	}
	for name, want := range map[string]error{
		"none0": net.ErrNoTAP, "": net.ErrNoTAP, "a-name-too-long-for-one": net.ErrNoTAP,
		"tun0": net.ErrNotTAP, "lo": net.ErrNotTAP,
	} {
		if _, err := net.OpenTAP(name); !errors.Is(err, want) {
			t.Errorf("open %q: %v, want %v", name, err, want)
		}
	}
}

// A descriptor that a supervisor opened serves as well.
func TestNewTAP(t *testing.T) {
	if !namespace(t) {
		return
	}
	makeTAP(t, "tap0", unix.IFF_TAP|unix.IFF_NO_PI)
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := net.NewTAP(os.NewFile(uintptr(fd), "not attached")); !errors.Is(err, net.ErrNotTAP) {
		t.Errorf("not attached: %v", err)
	}
	if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	ifr := ifreq(t, "tap0")
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		t.Fatal(err)
	}
	tap, err := net.NewTAP(os.NewFile(uintptr(fd), "attached"))
	if err != nil {
		t.Fatal(err)
	}
	if tap.Name() != "tap0" {
		t.Errorf("name %q", tap.Name())
	}
	if err := tap.Close(); err != nil {
		t.Error(err)
	}
}
