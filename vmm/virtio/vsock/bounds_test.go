package vsock

import (
	"errors"
	"io"
	"syscall"
	"testing"
)

// say sends a packet of the guest on stream (5, port), with data bytes of data.
func (p *play) say(op uint16, port uint32, data int) {
	h := header{srcCID: playCID, dstCID: HostCID, srcPort: port, dstPort: 5, kind: typeStream, op: op,
		len: uint32(data), bufAlloc: 1000}
	head := h.encode()
	raw := append(head[:], make([]byte, data)...)
	p.driver.Put(p.tx.Addr, raw)
	p.tx.Len = uint32(len(raw))
	p.driver.Ring(queueTX).Add(p.tx)
	p.driver.Kick(queueTX)
	p.driver.Ring(queueTX).Wait()
}

// A guest that opens and resets streams, and takes none of the answers, makes
// no list grow.
func TestOpenAndResetFlood(t *testing.T) {
	p := newPlay(t)
	p.say(opRequest, 1, 0)
	p.drain()
	p.accept()
	for len(p.rx) > 0 { // use up the receive buffers, one answer each
		p.say(opCreditRequest, 1, 0)
		head, _ := p.driver.Ring(queueRX).Wait()
		delete(p.rx, head)
	}
	p.say(opCreditRequest, 1, 0) // stays first in line
	for i := range uint32(10 * MaxConns) {
		p.say(opRequest, 2+i, 0)
		p.say(opRst, 2+i, 0)
		p.accept()
	}
	p.check()
	if n := len(p.d.ready); n != 1 {
		t.Errorf("%d streams wait to send, want 1", n)
	}
}

// Streams that ended with unread data keep their buffers, and count: a guest
// that makes more and more of them gets no more buffers than MaxConns.
func TestBuffersOfEndedStreams(t *testing.T) {
	p := newPlay(t)
	var conns []*Conn
	for i := range uint32(MaxConns) {
		p.say(opRequest, i, 0)
		p.say(opRW, i, 1)
		p.say(opRst, i, 0)
		p.drain()
		c, err := p.l.AcceptConn()
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	more := func(port uint32) (*Conn, error) {
		p.say(opRequest, port, 0)
		p.say(opRW, port, 1)
		p.drain()
		c, err := p.l.AcceptConn()
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Read(make([]byte, 1))
		return c, err
	}
	if _, err := more(1000); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one stream more: %v", err)
	}
	if n, err := conns[0].Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("an ended stream: read %d, %v", n, err)
	}
	if _, err := more(1001); err != nil {
		t.Errorf("after one was read: %v", err)
	}
	_ = conns[1].Close()
	if _, err := more(1002); err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("after one was closed: %v", err)
	}
	p.check()
}
