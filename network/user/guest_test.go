package user

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/duplex-run/duplex/network/proxy"
	vnet "github.com/duplex-run/duplex/vmm/virtio/net"
)

// guest is a machine on the network: another stack, on the device's end.
type guest struct {
	tb   testing.TB
	s    *Stack
	ip   *stack.Stack
	link *link
	f    *os.File
	done chan struct{}
}

const allOffloads = vnet.FeatureCsum | vnet.FeatureGuestCsum | vnet.FeatureHostTSO4 | vnet.FeatureGuestTSO4

// start makes a network and a guest on it.
func start(tb testing.TB, cfg Config, offloads uint64) *guest {
	tb.Helper()
	s, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	f, err := s.Connect()
	if err != nil {
		tb.Fatal(err)
	}
	g := &guest{tb: tb, s: s, f: f, done: make(chan struct{})}
	own := s.Config().Guest
	addr := tcpip.AddrFrom4(own.Addr().As4())
	g.link = &link{mac: "\x02guest", mtu: s.Config().MTU, own: []tcpip.Address{addr}}
	g.link.offloads.Store(offloads)
	g.ip = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	must := func(err tcpip.Error) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	must(g.ip.CreateNIC(nic, ethernet.New(g.link)))
	must(g.ip.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: addr, PrefixLen: own.Bits()}}, stack.AddressProperties{}))
	subnet, err := tcpip.NewSubnet(tcpip.AddrFrom4(own.Masked().Addr().As4()), tcpip.MaskFromBytes(net.CIDRMask(own.Bits(), 32)))
	if err != nil {
		tb.Fatal(err)
	}
	g.ip.SetRouteTable([]tcpip.Route{{Destination: subnet, NIC: nic},
		{Destination: header.IPv4EmptySubnet, Gateway: tcpip.AddrFrom4(s.Config().Gateway.As4()), NIC: nic}})
	msg := vnet.OffloadMessage(offloads)
	if _, err := f.Write(msg[:]); err != nil {
		tb.Fatal(err)
	}
	g.link.attachFile(f)
	go func() {
		defer close(g.done)
		_ = g.link.serve(f)
	}()
	tb.Cleanup(g.close)
	return g
}

// close ends the guest and the network.
func (g *guest) close() {
	if g.f == nil {
		return
	}
	if err := g.s.Close(); err != nil {
		g.tb.Error(err)
	}
	g.link.detachFile(g.f)
	<-g.done
	_ = g.f.Close()
	g.f = nil
	g.ip.Destroy()
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(a.Addr().As4()), Port: a.Port()}
}

// dial connects from the guest.
func (g *guest) dial(to netip.AddrPort) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := gonet.DialContextTCP(ctx, g.ip, full(to), ipv4.ProtocolNumber)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c, err
}

func (g *guest) dialUDP(to netip.AddrPort) *gonet.UDPConn {
	g.tb.Helper()
	remote := full(to)
	c, err := gonet.DialUDP(g.ip, nil, &remote, ipv4.ProtocolNumber)
	if err != nil {
		g.tb.Fatal(err)
	}
	g.tb.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// gateway is the host's loopback as the guest sees it.
func (g *guest) gateway(a net.Addr) netip.AddrPort {
	port := 0
	switch a := a.(type) {
	case *net.TCPAddr:
		port = a.Port
	case *net.UDPAddr:
		port = a.Port
	}
	return netip.AddrPortFrom(g.s.Config().Gateway, uint16(port))
}

// hostTCP serves connections on the host's loopback until the test ends.
func hostTCP(tb testing.TB, serve func(*net.TCPConn)) net.Addr {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var all sync.WaitGroup
	ended := make(chan struct{})
	tb.Cleanup(func() {
		_ = l.Close()
		close(ended)
		all.Wait()
	})
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = c.Close() }()
				served := make(chan struct{})
				all.Go(func() {
					select {
					case <-ended:
						_ = c.Close()
					case <-served:
					}
				})
				serve(c.(*net.TCPConn))
				close(served)
			})
		}
	})
	return l.Addr()
}

func echoTCP(c *net.TCPConn) { _, _ = io.Copy(c, c) }

// hostUDP answers datagrams on the host's loopback until the test ends; an
// answer of nil is none.
func hostUDP(tb testing.TB, answer func([]byte) []byte) netip.AddrPort {
	tb.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	tb.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, proxy.Datagram)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if a := answer(buf[:n]); err == nil && a != nil {
				_, _ = c.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func echo(p []byte) []byte { return p }

// ping sends echo requests, in order, and returns who answers first.
func (g *guest) ping(to ...netip.Addr) netip.Addr {
	g.tb.Helper()
	var wq waiter.Queue
	ep, terr := g.ip.NewEndpoint(icmp.ProtocolNumber4, ipv4.ProtocolNumber, &wq)
	if terr != nil {
		g.tb.Fatal(terr)
	}
	defer ep.Close()
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	for _, a := range to {
		p := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize))
		p.SetType(header.ICMPv4Echo)
		dst := full(netip.AddrPortFrom(a, 0))
		if _, terr := ep.Write(bytes.NewReader(p), tcpip.WriteOptions{To: &dst}); terr != nil {
			g.tb.Fatal(terr)
		}
	}
	for {
		select {
		case <-readable:
		case <-time.After(10 * time.Second):
			g.tb.Fatal("nobody answers")
		}
		res, terr := ep.Read(io.Discard, tcpip.ReadOptions{NeedRemoteAddr: true})
		if terr == nil {
			return netip.AddrFrom4(res.RemoteAddr.Addr.As4())
		}
	}
}

// syn sends a SYN by hand, from a port of which the guest knows nothing.
func (g *guest) syn(to netip.AddrPort) error {
	_, err := g.f.Write(synFrame(g.s.Config().Guest.Addr(), to))
	return err
}

func synFrame(from netip.Addr, to netip.AddrPort) []byte {
	seg := make([]byte, header.TCPMinimumSize)
	header.TCP(seg).Encode(&header.TCPFields{SrcPort: 1, DstPort: to.Port(), SeqNum: 7,
		DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 1000})
	p := ipFrame(from, to.Addr(), uint8(tcp.ProtocolNumber), seg)
	vnet.Header{Flags: vnet.NeedsCsum, CsumStart: 34, CsumOffset: 16}.Put(p)
	return p
}

// ipFrame is a packet of the device: header, Ethernet, IPv4.
func ipFrame(from, to netip.Addr, proto uint8, payload []byte) []byte {
	p := make([]byte, vnet.HeaderLen+header.EthernetMinimumSize+header.IPv4MinimumSize, 128)
	eth := header.Ethernet(p[vnet.HeaderLen:])
	eth.Encode(&header.EthernetFields{SrcAddr: "\x02guest", DstAddr: gatewayMAC, Type: ipv4.ProtocolNumber})
	header.IPv4(eth[header.EthernetMinimumSize:]).Encode(&header.IPv4Fields{
		TotalLength: uint16(header.IPv4MinimumSize + len(payload)), TTL: 64, Protocol: proto,
		SrcAddr: tcpip.AddrFrom4(from.As4()), DstAddr: tcpip.AddrFrom4(to.As4())})
	return append(p, payload...)
}

// arpFrame asks for an address.
func arpFrame(from, to netip.Addr) []byte {
	p := make([]byte, vnet.HeaderLen+header.EthernetMinimumSize+header.ARPSize)
	eth := header.Ethernet(p[vnet.HeaderLen:])
	eth.Encode(&header.EthernetFields{SrcAddr: "\x02guest", DstAddr: header.EthernetBroadcastAddress, Type: arp.ProtocolNumber})
	a := header.ARP(eth[header.EthernetMinimumSize:])
	a.SetIPv4OverEthernet()
	a.SetOp(header.ARPRequest)
	copy(a.HardwareAddressSender(), "\x02guest")
	copy(a.ProtocolAddressSender(), from.AsSlice())
	copy(a.ProtocolAddressTarget(), to.AsSlice())
	return p
}
