package main

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
)

func TestFindInterface(t *testing.T) {
	class := t.TempDir()
	add := func(name, mac string) {
		must(t, os.Mkdir(filepath.Join(class, name), 0o755),
			os.WriteFile(filepath.Join(class, name, "address"), []byte(mac+"\n"), 0o644))
	}
	check := func(mac, want, problem string) {
		t.Helper()
		got, err := findInterface(class, mac)
		if got != want || (err == nil) != (problem == "") || err != nil && !strings.Contains(err.Error(), problem) {
			t.Errorf("%q: %q, %v; want %q, %q", mac, got, err, want, problem)
		}
	}
	add("lo", "00:00:00:00:00:00")
	check("", "", "virtio_net")
	add("eth0", "02:00:00:00:00:0a")
	check("", "eth0", "")
	check("02:00:00:00:00:0A", "eth0", "")
	check("02:00:00:00:00:0b", "", "no network interface with address")
	add("eth1", "02:00:00:00:00:0b")
	check("", "", "several")
	check("02:00:00:00:00:0b", "eth1", "")
}

func network() *agentproto.Network {
	return &agentproto.Network{
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.2.15/24"), netip.MustParsePrefix("fd00::15/64")},
		Gateways:  []netip.Addr{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00::2")},
		DNS:       []netip.Addr{netip.MustParseAddr("10.0.2.3"), netip.MustParseAddr("fd00::3")},
		Search:    []string{"example.org", "test"},
		MTU:       1400,
	}
}

func TestWriteNames(t *testing.T) {
	etc := filepath.Join(t.TempDir(), "etc")
	must(t, writeNames(etc, "h", nil))
	if _, err := os.Stat(etc); !os.IsNotExist(err) {
		t.Errorf("without a network: %v", err)
	}
	must(t, os.Mkdir(etc, 0o755), os.Symlink("/run/nothing/stub-resolv.conf", filepath.Join(etc, "resolv.conf")))
	must(t, writeNames(etc, "h", network()))
	for name, want := range map[string]string{
		"resolv.conf": "nameserver 10.0.2.3\nnameserver fd00::3\nsearch example.org test\n",
		"hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n" +
			"ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.0.2.15\th\nfd00::15\th\n",
	} {
		if got, err := os.ReadFile(filepath.Join(etc, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	without := network()
	without.DNS = nil
	must(t, os.WriteFile(filepath.Join(etc, "resolv.conf"), []byte("the image's"), 0o644), writeNames(etc, "h", without))
	if got, _ := os.ReadFile(filepath.Join(etc, "resolv.conf")); string(got) != "the image's" {
		t.Errorf("without servers resolv.conf is %q", got)
	}
}

const insideNetNS = "DUPLEX_TEST_NETNS"

// The kernel takes the configuration as it is meant, in a network namespace with
// a TAP device in the place of virtio-net.
func TestConfigure(t *testing.T) {
	if os.Getenv(insideNetNS) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestConfigure$", "-test.v")
		cmd.Env = append(os.Environ(), insideNetNS+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
			Pdeathsig:   syscall.SIGKILL,
		}
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestConfigure")) {
			t.Errorf("in a network namespace: %v\n%s", err, out)
		}
		return
	}
	tap, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	defer func() { _ = unix.Close(tap) }()
	ifr, err := unix.NewIfreq("eth0")
	must(t, err)
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	must(t, unix.IoctlIfreq(tap, unix.TUNSETIFF, ifr))
	iface, err := net.InterfaceByName("eth0")
	must(t, err)
	class := t.TempDir() // /sys shows another namespace
	must(t, os.Mkdir(filepath.Join(class, "eth0"), 0o755),
		os.WriteFile(filepath.Join(class, "eth0", "ifindex"), []byte(strconv.Itoa(iface.Index)+"\n"), 0o644))
	n := network()
	n.Gateways[0] = netip.MustParseAddr("192.0.2.1") // on the link, in no network
	must(t, configure(class, "eth0", n))
	must(t, configure(class, "eth0", n)) // again is fine
	iface, err = net.InterfaceByName("eth0")
	must(t, err)
	if iface.MTU != 1400 || iface.Flags&net.FlagUp == 0 || iface.Flags&net.FlagRunning == 0 {
		t.Errorf("interface %+v", iface)
	}
	addrs, err := iface.Addrs()
	must(t, err)
	var got []string
	for _, a := range addrs {
		got = append(got, a.String())
	}
	for _, want := range n.Addresses {
		if !slices.Contains(got, want.String()) {
			t.Errorf("addresses %v lack %s", got, want)
		}
	}
	routes, err := os.ReadFile("/proc/self/net/route")
	must(t, err)
	if !strings.Contains(string(routes), "eth0\t00000000\t010200C0\t0003") {
		t.Errorf("no default route:\n%s", routes)
	}
	routes6, err := os.ReadFile("/proc/self/net/ipv6_route")
	must(t, err)
	if !strings.Contains(string(routes6), strings.Repeat("0", 32)+" 00 "+strings.Repeat("0", 32)+" 00 fd000000000000000000000000000002") {
		t.Errorf("no IPv6 default route:\n%s", routes6)
	}
}
