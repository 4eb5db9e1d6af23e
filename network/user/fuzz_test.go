package user

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	vnet "github.com/duplex-run/duplex/vmm/virtio/net"
)

// caught is a configuration that lets nothing out but to the host's loopback.
func caught() Config {
	return Config{
		Guest: netip.MustParsePrefix("10.0.2.15/0"), Gateway: netip.MustParseAddr("10.0.2.2"),
		DNS: netip.MustParseAddr("10.0.2.3"), HostLoopback: true, Resolvers: []netip.AddrPort{hostless},
	}
}

// script is messages, each after its length.
func script(messages ...[]byte) (p []byte) {
	for _, m := range messages {
		p = append(binary.LittleEndian.AppendUint16(p, uint16(len(m))), m...)
	}
	return p
}

// Whatever a guest sends, the stack goes on: it answers ARP, and it closes.
func FuzzFrames(f *testing.F) {
	c := caught()
	own := c.Guest.Addr()
	segment := func(dst uint16, data string) []byte {
		p := make([]byte, header.UDPMinimumSize)
		header.UDP(p).Encode(&header.UDPFields{SrcPort: 9, DstPort: dst, Length: uint16(len(p) + len(data))})
		return append(p, data...)
	}
	echo := make([]byte, header.ICMPv4MinimumSize)
	header.ICMPv4(echo).SetType(header.ICMPv4Echo)
	ask, syn := arpFrame(own, c.Gateway), synFrame(own, netip.AddrPortFrom(c.Gateway, 9))
	query := ipFrame(own, c.DNS, uint8(udp.ProtocolNumber), segment(53, "a query with an id"))
	toHost := ipFrame(own, c.Gateway, uint8(udp.ProtocolNumber), segment(9, "a datagram"))
	ping := ipFrame(own, c.Gateway, uint8(icmp.ProtocolNumber4), echo)
	part := append([]byte{}, toHost...)
	part[vnet.HeaderLen+header.EthernetMinimumSize+6] = 0x20 // more fragments
	f.Add(script(ask, syn, syn[:60]))
	f.Add(script(ask, query, toHost, ping))
	f.Add(script(part, part, part))
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := New(caught())
		if err != nil {
			t.Fatal(err)
		}
		far, err := s.Connect()
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan struct{}, 1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			findARP(far, answered)
		}()
		for len(p) > 2 {
			n := min(int(binary.LittleEndian.Uint16(p)), len(p)-2)
			s.link.receive(p[2 : 2+n])
			p = p[2+n:]
		}
		select { // an answer to what the fuzzer made
		case <-answered:
		default:
		}
		s.link.receive(arpFrame(own, c.Gateway))
		select {
		case <-answered:
		case <-time.After(5 * time.Second):
			t.Error("no answer to ARP")
		}
		_ = s.Close()
		_ = far.SetDeadline(time.Unix(1, 0))
		<-done
		_ = far.Close()
	})
}

// findARP reads until the deadline and tells of answers to ARP.
func findARP(f *os.File, answered chan<- struct{}) {
	buf := make([]byte, 1<<17)
	for {
		n, err := f.Read(buf)
		if err != nil || n == 0 {
			return
		}
		if n < vnet.HeaderLen+header.EthernetMinimumSize+header.ARPSize {
			continue
		}
		if a := header.ARP(buf[vnet.HeaderLen+header.EthernetMinimumSize : n]); a.IsValid() && a.Op() == header.ARPReply {
			select {
			case answered <- struct{}{}:
			default:
			}
		}
	}
}
