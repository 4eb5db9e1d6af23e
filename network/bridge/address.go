package bridge

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/duplex-run/duplex/network/bridge/state"
)

// firstNetwork and lastNetwork are the second bytes of the networks to choose from.
const (
	firstNetwork, lastNetwork = 83, 98
	networkBits               = 16
	// maxPorts is the kernel's bound of a bridge (BR_MAX_PORTS), less some.
	maxPorts = 1000
)

// candidates are the networks to choose from; 10.88.0.0/16 is podman's.
func candidates() (list []netip.Prefix) {
	for n := byte(firstNetwork); n <= lastNetwork; n++ {
		if n != 88 {
			list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, n, 0, 0}), networkBits))
		}
	}
	return list
}

// choose returns the first candidate that overlaps none of used.
func choose(used []netip.Prefix) (netip.Prefix, error) {
next:
	for _, c := range candidates() {
		for _, u := range used {
			if u.Bits() > 0 && u.Overlaps(c) {
				continue next
			}
		}
		return c, nil
	}
	return netip.Prefix{}, fmt.Errorf("the host has routes into all of 10.%d.0.0/16 to 10.%d.0.0/16", firstNetwork, lastNetwork)
}

// nth is the address with that number in a network.
func nth(network netip.Prefix, n uint32) netip.Addr {
	base := network.Masked().Addr().As4()
	var out [4]byte
	binary.BigEndian.PutUint32(out[:], binary.BigEndian.Uint32(base[:])+n)
	return netip.AddrFrom4(out)
}

// linkName is the interface of an address.
func linkName(a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("%s%x", state.LinkPrefix, b[:])
}

// hardwareAddr is that of an address: who has it next has it too, so that nobody
// sends to the one before.
func hardwareAddr(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return append(net.HardwareAddr{0x02, 0x64}, b[:]...)
}
