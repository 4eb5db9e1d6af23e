package vsock

import (
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"testing"

	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// FuzzPacket plays a guest whose packets are whole but say what the input says,
// and a host that reads, writes, closes and dials between them: four bytes an
// action. No input may break the device, exceed a bound, or make it send a
// packet that is wrong or beyond the guest's credit.
func FuzzPacket(f *testing.F) {
	open, data := []byte{opRequest, 0, 0, 2}, []byte{opRW, 0, 20, 20}
	f.Add(slices.Concat(open, data, []byte{8, 0, 0, 0, 9, 0, 50, 0, opShutdown, 0, 3, 2}))
	f.Add(slices.Concat(open, []byte{9, 0, 200, 0, opCreditUpdate, 0, 1, 1, 10, 0, 2, 0}, data))
	f.Add([]byte{11, 0, 0, 0, opResponse, 8, 0, 2, 9, 0, 100, 0, 10, 0, 0, 0, opRst, 8, 0, 0})
	f.Add(slices.Concat(open, data, []byte{8, 0, 0, 0, 10, 0, 255, 0}, data, open))
	f.Add(slices.Concat(open, []byte{opRW, 0, 255, 1, opCreditRequest, 0, 0, 0, opRequest, 0, 0, 0}))
	f.Fuzz(func(t *testing.T, script []byte) {
		p := newPlay(t)
		for ; len(script) >= 4; script = script[4:] {
			p.act(script[0]%12, script[1], script[2], script[3])
			p.drain()
			p.check()
		}
	})
}

const playCID = 3

// play is a device with a host and a guest that act in turn.
type play struct {
	t      testing.TB
	d      *Device
	l      *Listener
	driver *v.Driver
	tx     v.Buf
	rx     map[uint16]v.Buf
	conns  []*Conn  // the host's, in the order they came
	dialed []uint32 // host ports that Dial took
	ctx    context.Context
	done   chan *Conn // one for each Dial
	got    map[key]uint32
}

func newPlay(t *testing.T) *play {
	d, err := New(playCID)
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Listen(5)
	if err != nil {
		t.Fatal(err)
	}
	p := &play{t: t, d: d, l: l, driver: v.StartSmall(t, d), rx: map[uint16]v.Buf{},
		done: make(chan *Conn, 4), got: map[key]uint32{}}
	p.tx = p.driver.In(headerLen + 256)
	p.tx.Write = false
	for range 32 {
		p.give(p.driver.In(512))
	}
	p.driver.Kick(queueRX)
	ctx, cancel := context.WithCancel(context.Background())
	p.ctx = ctx
	t.Cleanup(func() {
		cancel()
		_ = d.Close()
		for range p.dialed {
			<-p.done
		}
	})
	return p
}

func (p *play) give(b v.Buf) { p.rx[p.driver.Ring(queueRX).Add(b)] = b }

// act does what four bytes say.
func (p *play) act(what, who, a, b byte) {
	switch what {
	case 8:
		p.accept()
	case 9, 10:
		if len(p.conns) > 0 {
			p.host(p.conns[int(who)%len(p.conns)], what, a)
		}
	case 11:
		if len(p.dialed) < cap(p.done) {
			p.dial(uint32(who))
		}
	default:
		p.packet(uint16(what), who, a, b)
	}
}

// packet sends a packet of the guest.
func (p *play) packet(op uint16, who, a, b byte) {
	h := header{srcCID: playCID, dstCID: HostCID, srcPort: uint32(who & 3), dstPort: 5, kind: typeStream,
		op: op, len: uint32(a), flags: uint32(a)}
	if i := int(who>>3) - 1; who>>3 > 0 && i < len(p.dialed) {
		h.dstPort = p.dialed[i]
	} else if who&4 != 0 {
		h.dstPort = 6
	}
	h.bufAlloc = [...]uint32{0, 100, 1 << 18, 1<<32 - 1}[b&3]
	h.fwdCnt = [...]uint32{p.got[key{h.dstPort, h.srcPort}], 0, 1 << 31, uint32(a)}[b>>2&3]
	head := h.encode()
	raw := append(head[:], make([]byte, b)...)
	p.driver.Put(p.tx.Addr, raw)
	p.tx.Len = uint32(len(raw))
	p.driver.Ring(queueTX).Add(p.tx)
	p.driver.Kick(queueTX)
	p.driver.Ring(queueTX).Wait()
}

// accept takes all new streams, and reads what came on the others.
func (p *play) accept() {
	p.d.mu.Lock()
	waiting := len(p.l.backlog)
	p.d.mu.Unlock()
	for range waiting {
		c, err := p.l.AcceptConn()
		if err != nil {
			p.t.Fatal(err)
		}
		p.conns = append(p.conns, c)
	}
	for _, c := range p.conns {
		p.d.mu.Lock()
		readable := c.in.n > 0
		p.d.mu.Unlock()
		if readable {
			if _, err := c.Read(make([]byte, 100)); err != nil {
				p.t.Fatalf("read of what is buffered: %v", err)
			}
		}
	}
}

// host writes as much as the credit allows, or closes.
func (p *play) host(c *Conn, what, a byte) {
	p.d.mu.Lock()
	room := c.credit()
	p.d.mu.Unlock()
	switch {
	case what == 9 && room > 0:
		_, _ = c.Write(make([]byte, min(uint32(a), room)))
	case what == 10 && a > 250:
		p.d.TransportReset()
	case what == 10:
		_ = [...]func() error{c.Close, c.CloseRead, c.CloseWrite}[a%3]()
	}
}

func (p *play) dial(port uint32) {
	go func() {
		c, _ := p.d.Dial(p.ctx, port&3)
		p.done <- c
	}()
	p.dialed = append(p.dialed, p.packetOut().srcPort)
}

// packetOut waits for a packet from the device and checks it.
func (p *play) packetOut() header {
	head, n := p.driver.Ring(queueRX).Wait()
	return p.look(head, n)
}

// drain takes the packets that the device has sent.
func (p *play) drain() {
	for head, n, ok := p.driver.Ring(queueRX).Next(); ok; head, n, ok = p.driver.Ring(queueRX).Next() {
		p.look(head, n)
	}
}

func (p *play) look(head uint16, n uint32) header {
	buf := p.rx[head]
	raw := p.driver.Bytes(buf)
	delete(p.rx, head)
	p.give(buf)
	p.driver.Kick(queueRX)
	le := binary.LittleEndian
	h := header{srcCID: le.Uint64(raw), dstCID: le.Uint64(raw[8:]), srcPort: le.Uint32(raw[16:]),
		dstPort: le.Uint32(raw[20:]), len: le.Uint32(raw[24:]), kind: le.Uint16(raw[28:]), op: le.Uint16(raw[30:]),
		bufAlloc: le.Uint32(raw[36:])}
	switch {
	case h.srcCID != HostCID || h.dstCID != playCID || h.kind != typeStream || n != headerLen+h.len,
		h.op < opRequest || h.op > opCreditRequest, h.op != opRW && h.len != 0,
		h.op != opRst && h.bufAlloc != BufferSize:
		p.t.Fatalf("bad packet of %d bytes: %+v", n, h)
	}
	if h.op == opRW {
		p.got[key{h.srcPort, h.dstPort}] += h.len
	}
	return h
}

// check looks at the device's bounds.
func (p *play) check() {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	if p.d.act == nil {
		p.t.Fatalf("the device broke: %v", p.driver.Transport.Err())
	}
	d := p.d
	if len(d.conns) > MaxConns || len(d.ready) > len(d.conns) || d.rings > MaxConns ||
		len(d.replies) > maxReplies+MaxConns || len(p.l.backlog) > Backlog {
		p.t.Fatalf("%d streams, %d ready, %d buffers, %d answers, %d in the backlog",
			len(d.conns), len(d.ready), d.rings, len(d.replies), len(p.l.backlog))
	}
	for k, c := range p.d.conns {
		if c.key != k || c.err != nil || c.in.n > BufferSize || c.fwd-c.toldFwd > BufferSize {
			p.t.Errorf("stream %v: error %v, %d bytes buffered, %d not told", k, c.err, c.in.n, c.fwd-c.toldFwd)
		}
	}
}

// FuzzConnect reads the line of a Bridge's client: nothing after it is read, and
// nothing but CONNECT and a port is taken.
func FuzzConnect(f *testing.F) {
	for _, s := range []string{"CONNECT 52\nhello", "connect 4294967295\n", "CONNECT 007\n", "CONNECT 1", "\n", strings.Repeat("9", 40)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := strings.NewReader(s)
		port, err := readConnect(r)
		line := s[:len(s)-r.Len()]
		if i := strings.IndexByte(line, '\n'); len(line) > MaxLine || i >= 0 && i != len(line)-1 {
			t.Fatalf("read %q of %q", line, s)
		}
		if err != nil {
			return
		}
		digits := strings.TrimLeft(strings.TrimSuffix(line[len("CONNECT "):], "\n"), "0")
		if want := strings.TrimLeft(strconv.Itoa(int(port)), "0"); digits != want || !strings.EqualFold(line[:8], "CONNECT ") {
			t.Errorf("%q is taken for port %d", line, port)
		}
	})
}
