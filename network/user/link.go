package user

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/duplex-run/duplex/vmm/virtio/net"
)

// link is the stack's network card: packets of vmm/virtio/net, each a message of
// a socket. It is a stack.LinkEndpoint below link/ethernet.
type link struct {
	mac tcpip.LinkAddress
	mtu int             // of IP
	own []tcpip.Address // that answer pings

	offloads atomic.Uint64 // what the guest takes (net.OffloadMessage)
	dropped  atomic.Uint64 // packets from the guest that were none
	busy     atomic.Bool   // a packet is being received

	mu         sync.RWMutex
	dispatcher stack.NetworkDispatcher
	f          *os.File // nil without a guest

	writing sync.Mutex // one packet at a time; held while the guest has no room
	vec     [][]byte
	header  [net.HeaderLen]byte
}

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
)

// gatewayMAC is the address of the stack: locally administered.
const gatewayMAC = tcpip.LinkAddress("\x02duplx")

// maxGSO bounds the IP packets that the guest's kernel is to cut up.
const maxGSO = 60000

// serve takes packets from f until its end, an error or closing.
func (l *link) serve(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, net.HeaderLen+net.MaxFrame+1)
	for {
		var n int
		var rerr error
		err := conn.Read(func(fd uintptr) bool {
			l.busy.Store(true) // before there is one, see Stack.Flush
			n, rerr = unix.Read(int(fd), buf)
			l.busy.Store(rerr != unix.EAGAIN)
			return rerr != unix.EAGAIN && rerr != unix.EINTR
		})
		if err != nil {
			return err
		}
		if rerr != nil {
			return fmt.Errorf("read a packet: %w", rerr)
		}
		if n == 0 {
			return io.EOF
		}
		l.receive(buf[:n])
	}
}

// receive handles one message.
func (l *link) receive(p []byte) {
	if features, ok := net.ParseOffloadMessage(p); ok {
		l.offloads.Store(features)
		return
	}
	if len(p) < net.HeaderLen {
		l.dropped.Add(1)
		return
	}
	frame := p[net.HeaderLen:]
	const offered = net.FeatureCsum | net.FeatureHostTSO4 | net.FeatureHostTSO6
	_, _, err := net.ParseHeader(p).Sanitize(len(frame), offered)
	if err != nil || !l.wanted(frame) {
		l.dropped.Add(1)
		return
	}
	l.mu.RLock()
	d := l.dispatcher
	l.mu.RUnlock()
	if d == nil {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	d.DeliverNetworkPacket(0, pkt) // link/ethernet finds the protocol
	pkt.DecRef()
}

// wanted keeps out what the stack would answer for others: pings of addresses
// that are not its own.
func (l *link) wanted(frame []byte) bool {
	eth := header.Ethernet(frame) // of at least 14 bytes: Sanitize
	if eth.Type() != header.IPv4ProtocolNumber {
		return eth.Type() == header.ARPProtocolNumber
	}
	ip := header.IPv4(frame[header.EthernetMinimumSize:])
	if len(ip) < header.IPv4MinimumSize {
		return false
	}
	if ip.TransportProtocol() != header.ICMPv4ProtocolNumber {
		return true
	}
	return slices.Contains(l.own, ip.DestinationAddress())
}

// WritePackets implements stack.LinkEndpoint. It waits while the guest has no
// room: the sender's window is the bound.
func (l *link) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range list.AsSlice() {
		if err := l.write(pkt); err != nil {
			return i, err
		}
	}
	return list.Len(), nil
}

func (l *link) write(pkt *stack.PacketBuffer) tcpip.Error {
	l.mu.RLock()
	f := l.f
	l.mu.RUnlock()
	if f == nil {
		return &tcpip.ErrClosedForSend{}
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return &tcpip.ErrClosedForSend{}
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	headerOf(pkt).Put(l.header[:])
	l.vec = append(append(l.vec[:0], l.header[:]), pkt.AsSlices()...)
	var werr error
	err = conn.Write(func(fd uintptr) bool {
		_, werr = unix.Writev(int(fd), l.vec)
		return werr != unix.EAGAIN && werr != unix.EINTR
	})
	clear(l.vec)
	if err != nil || werr != nil {
		return &tcpip.ErrClosedForSend{}
	}
	return nil
}

// headerOf says what is left to do for a packet.
func headerOf(pkt *stack.PacketBuffer) net.Header {
	var h net.Header
	gso := pkt.GSOOptions
	if gso.Type == stack.GSONone {
		return h
	}
	h.HdrLen = uint16(pkt.HeaderSize())
	if gso.NeedsCsum {
		h.Flags = net.NeedsCsum
		h.CsumStart = header.EthernetMinimumSize + gso.L3HdrLen
		h.CsumOffset = gso.CsumOffset
	}
	if gso.Type == stack.GSOTCPv4 && pkt.Data().Size() > int(gso.MSS) {
		h.GSOType, h.GSOSize = net.GSOTCPv4, gso.MSS
	}
	return h
}

// attachFile sets the socket. It is false when there is one.
func (l *link) attachFile(f *os.File) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		return false
	}
	l.f = f
	return true
}

// detachFile ends serve and all writes of f.
func (l *link) detachFile(f *os.File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == f {
		l.f = nil
		_ = f.SetDeadline(time.Unix(1, 0))
	}
}

// MTU implements stack.LinkEndpoint; link/ethernet takes its header off.
func (l *link) MTU() uint32 { return uint32(l.mtu) + header.EthernetMinimumSize }

// GSOMaxSize implements stack.GSOEndpoint.
func (l *link) GSOMaxSize() uint32 { return maxGSO }

// SupportedGSO implements stack.GSOEndpoint.
func (l *link) SupportedGSO() stack.SupportedGSO {
	if l.offloads.Load()&net.FeatureGuestTSO4 != 0 {
		return stack.HostGSOSupported
	}
	return stack.GSONotSupported
}

// Attach implements stack.LinkEndpoint.
func (l *link) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = d
}

// IsAttached implements stack.LinkEndpoint.
func (l *link) IsAttached() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.dispatcher != nil
}

// Capabilities implements stack.LinkEndpoint: checksums are not looked at. Those
// that the guest leaves to its device are never made, and memory has no bit
// errors.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// The rest of stack.LinkEndpoint, which nothing of ours depends on.

func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return 0 }
func (l *link) LinkAddress() tcpip.LinkAddress          { return l.mac }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) Wait()                                   {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (l *link) AddHeader(*stack.PacketBuffer)           {}
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *link) Close()                                  {}
func (l *link) SetOnCloseAction(func())                 {}
