package vsock_test

import (
	"encoding/binary"
	"testing"

	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

const (
	guestCID = 3
	rxSize   = 4096 // of a receive buffer, as Linux has them
	rxCount  = 64

	opRequest, opResponse, opRst, opShutdown = 1, 2, 3, 4
	opRW, opCreditUpdate, opCreditRequest    = 5, 6, 7
)

// pkt is a packet as the guest sees it.
type pkt struct {
	srcCID, dstCID   uint64
	srcPort, dstPort uint32
	len              uint32
	kind, op         uint16
	flags            uint32
	alloc, fwd       uint32
	data             []byte
}

func (p pkt) encode() []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, p.srcCID)
	b = le.AppendUint64(b, p.dstCID)
	for _, f := range []uint32{p.srcPort, p.dstPort, p.len, uint32(p.kind) | uint32(p.op)<<16, p.flags, p.alloc, p.fwd} {
		b = le.AppendUint32(b, f)
	}
	return append(b, p.data...)
}

func decode(b []byte) pkt {
	le := binary.LittleEndian
	return pkt{
		srcCID: le.Uint64(b), dstCID: le.Uint64(b[8:]), srcPort: le.Uint32(b[16:]), dstPort: le.Uint32(b[20:]),
		len: le.Uint32(b[24:]), kind: le.Uint16(b[28:]), op: le.Uint16(b[30:]), flags: le.Uint32(b[32:]),
		alloc: le.Uint32(b[36:]), fwd: le.Uint32(b[40:]), data: b[44:],
	}
}

// guest is the socket driver of a guest, packet by packet.
type guest struct {
	t      testing.TB
	d      *v.Driver
	dev    *vsock.Device
	rx     map[uint16]v.Buf
	tx     v.Buf // one transmit buffer, used again and again
	alloc  uint32
	manual bool // do not post receive buffers back
}

func boot(t testing.TB) *guest {
	t.Helper()
	dev, err := vsock.New(guestCID)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, dev: dev, alloc: 1 << 18}
	g.d = v.Start(t, dev)
	g.post()
	return g
}

// post gives the device receive buffers.
func (g *guest) post() {
	g.t.Helper()
	g.rx = map[uint16]v.Buf{}
	g.tx = v.Buf{Addr: g.d.Alloc(128 << 10)}
	for range min(rxCount, int(g.d.Ring(0).Size)) {
		g.give(g.d.In(rxSize))
	}
	g.d.Kick(0)
}

func (g *guest) give(b v.Buf) { g.rx[g.d.Ring(0).Add(b)] = b }

// transmit sends raw bytes as a packet.
func (g *guest) transmit(raw []byte) {
	g.t.Helper()
	b := v.Buf{Addr: g.tx.Addr, Len: uint32(len(raw))}
	g.d.Put(b.Addr, raw)
	g.d.Ring(1).Add(b)
	g.d.Kick(1)
	g.d.Ring(1).Wait()
}

// receive waits for the next packet from the host.
func (g *guest) receive() pkt {
	g.t.Helper()
	head, n := g.d.Ring(0).Wait()
	buf := g.rx[head]
	p := decode(g.d.Bytes(v.Buf{Addr: buf.Addr, Len: n}))
	if !g.manual {
		delete(g.rx, head)
		g.give(buf)
		g.d.Kick(0)
	}
	if p.srcCID != vsock.HostCID || p.dstCID != guestCID || p.kind != 1 || int(p.len) != len(p.data) {
		g.t.Fatalf("bad packet: %+v", p)
	}
	return p
}

// expect receives a packet and wants its operation.
func (g *guest) expect(op uint16) pkt {
	g.t.Helper()
	p := g.receive()
	if p.op != op {
		g.t.Fatalf("got operation %d (%d bytes), want %d", p.op, len(p.data), op)
	}
	return p
}

// nothing wants the device to have sent nothing. It is not waiting: what was
// done before must have been done on this goroutine.
func (g *guest) nothing() {
	g.t.Helper()
	if head, n, ok := g.d.Ring(0).Next(); ok {
		g.t.Fatalf("unexpected packet: %+v", decode(g.d.Bytes(v.Buf{Addr: g.rx[head].Addr, Len: n})))
	}
}

// sock is the guest's end of a stream.
type sock struct {
	g           *guest
	local, host uint32
	fwd         uint32 // bytes this end has consumed
}

func (s *sock) packet(op uint16) pkt {
	return pkt{srcCID: guestCID, dstCID: vsock.HostCID, srcPort: s.local, dstPort: s.host,
		kind: 1, op: op, alloc: s.g.alloc, fwd: s.fwd}
}

func (s *sock) send(op uint16) {
	s.g.t.Helper()
	s.g.transmit(s.packet(op).encode())
}

func (s *sock) shutdown(flags uint32) {
	s.g.t.Helper()
	p := s.packet(opShutdown)
	p.flags = flags
	s.g.transmit(p.encode())
}

func (s *sock) write(data []byte) {
	s.g.t.Helper()
	p := s.packet(opRW)
	p.len, p.data = uint32(len(data)), data
	s.g.transmit(p.encode())
}

// connect opens a stream to a listener and returns both ends.
func (g *guest) connect(l *vsock.Listener, local uint32) (*sock, *vsock.Conn) {
	g.t.Helper()
	s := &sock{g: g, local: local, host: l.Addr().(vsock.Addr).Port}
	s.send(opRequest)
	if p := g.expect(opResponse); p.dstPort != local || p.alloc != vsock.BufferSize {
		g.t.Fatalf("response: %+v", p)
	}
	c, err := l.AcceptConn()
	if err != nil {
		g.t.Fatal(err)
	}
	return s, c
}

func (g *guest) listen(port uint32) *vsock.Listener {
	g.t.Helper()
	l, err := g.dev.Listen(port)
	if err != nil {
		g.t.Fatal(err)
	}
	return l
}
