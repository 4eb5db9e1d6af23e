// Package user is a user-mode network: it gives a microVM outbound TCP and UDP,
// DNS and published ports without root and without a TAP device, by ending the
// guest's connections in a TCP/IP stack of this process (gVisor's netstack) and
// making the same ones with ordinary sockets.
//
//	s, err := user.New(user.Config{})
//	f, err := s.Connect()                 // the device's end of a socket pair
//	backend, err := net.NewSocket(f)      // vmm/virtio/net, maybe in another process
//	addr, err := s.Publish(user.Port{Host: 8080, Guest: 80, Proto: "tcp"})
//	s.Close()
//
// The guest has a static address and hears of it from the agent; there is no
// DHCP. With the default Config:
//
//	10.0.2.15/24  the guest
//	10.0.2.2      the gateway: answers pings, and with HostLoopback its ports are
//	              those of the host's 127.0.0.1
//	10.0.2.3      DNS: queries go to the resolvers of the host's /etc/resolv.conf
//
// Everything else the guest may reach is what this process may reach, the host's
// own addresses among them; never its loopback, nor the rest of 10.0.2.0/24.
// There is IPv4 only, and no ICMP beyond the gateway.
//
// The guest is hostile. What it can take from this process is bounded: Config
// has the bounds and says what they cost. Above them connections are refused and
// datagrams dropped. A connection counts until its last packet: for a guest that
// acknowledges nothing that is lingerTime after its end.
package user
