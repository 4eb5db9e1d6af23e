package oci

import (
	"net"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/testutil/netns"
)

// makeDevice makes an interface with permanent addresses of global scope, and one of
// another.
func makeDevice(t *testing.T, name string, addresses ...string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := netlink.NewVeth(attrs)
	link.PeerName = name + "-peer"
	must(t, netlink.LinkAdd(link))
	must(t, netlink.LinkSetUp(link))
	for _, a := range append(addresses, "169.254.7.7/16") {
		ip, prefix, err := net.ParseCIDR(a)
		must(t, err)
		prefix.IP = ip
		addr := &netlink.Addr{IPNet: prefix}
		if strings.HasPrefix(a, "169.254") {
			addr.Scope = int(netlink.SCOPE_LINK)
		}
		must(t, netlink.AddrAdd(link, addr))
	}
}

// Interfaces of the host are the container's, by names of their own, up and with
// their addresses.
func TestNetDevices(t *testing.T) {
	if !netns.Run(t) {
		return
	}
	must(t, unix.Unmount("/sys", 0)) // the small host's own, without cgroups, hides the host's
	makeDevice(t, "dev0", "10.99.1.2/24", "2001:db8::2/64")
	makeDevice(t, "dev1", "10.99.2.2/24")
	makeDevice(t, "dev2")
	b := newBundle(t, "cat", "/proc/net/dev", "/proc/net/fib_trie", "/proc/net/if_inet6")
	b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"dev0": {}, "dev1": {Name: "eth7"}, "dev2": {Name: "lan%d"}}
	out := b.output(t)
	for _, want := range []string{"dev0:", "eth7:", "lan0:", "10.99.1.2\n", "10.99.2.2\n", "20010db8000000000000000000000002 "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	for _, not := range []string{"dev1:", "dev2:", "169.254.7.7", "-peer"} {
		if strings.Contains(out, not) {
			t.Errorf("%q in\n%s", not, out)
		}
	}
	makeDevice(t, "dev3")
	for name, tt := range map[string]struct {
		devices map[string]specs.LinuxNetDevice
		want    string
	}{
		"missing": {map[string]specs.LinuxNetDevice{"none": {}}, "move the network device none: no such device"},
		"taken":   {map[string]specs.LinuxNetDevice{"dev3": {Name: "lo"}}, "move the network device dev3: name it lo: file exists"},
		"fixed":   {map[string]specs.LinuxNetDevice{"lo": {Name: "lo1"}}, "move the network device lo: move it: invalid argument"},
	} {
		b.spec.Linux.NetDevices = tt.devices
		if _, _, err := b.run(t); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		b.nothingLeft(t)
	}
	if _, err := netlink.LinkByName("dev3"); err != nil {
		t.Errorf("what could not be moved: %v", err)
	}
}
