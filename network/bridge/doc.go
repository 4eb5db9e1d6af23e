// Package bridge is a network of root's: containers and microVMs on one bridge of
// the host, which routes and masquerades what goes out.
//
//	p, err := bridge.Join(pid, "eth0")      // a veth pair into that process's network namespace
//	p, tap, err := bridge.JoinTAP()         // or a TAP device
//	p.Config                                // address, gateway, DNS server
//	addr, err := p.Publish(proxy.Port{Host: 8080, Guest: 80})
//	p.Close()
//
// The first to join makes the bridge duplex0, its nftables table and turns
// forwarding on; the last one to leave undoes all of it. The network is the first
// of 10.83.0.0/16 to 10.98.0.0/16 that no route of the host overlaps. The bridge
// has its first address; DNS queries to that go to the host's resolvers.
//
// # Allotment
//
// An address is a file in state.Dir, locked while its owner lives, and an interface
// whose name holds it: the kernel and flock(2) arbitrate between runs. Both ends of
// a veth pair go with the network namespace of a container that is killed, a TAP
// device with its descriptor; Sweep removes what stays.
package bridge
