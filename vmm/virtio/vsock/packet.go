package vsock

import (
	"encoding/binary"

	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// HostCID is the context identifier of the host (§5.10.4).
const HostCID = 2

// Operations (§5.10.6).
const (
	opRequest       = 1
	opResponse      = 2
	opRst           = 3
	opShutdown      = 4
	opRW            = 5
	opCreditUpdate  = 6
	opCreditRequest = 7
)

// Flags of opShutdown: what the sender of the packet will do no more (§5.10.6.5).
const (
	shutReceive = 1
	shutSend    = 2
	shutBoth    = shutReceive | shutSend
)

const typeStream = 1

const headerLen = 44

// header is struct virtio_vsock_hdr (§5.10.6).
type header struct {
	srcCID, dstCID   uint64
	srcPort, dstPort uint32
	len              uint32
	kind, op         uint16
	flags            uint32
	bufAlloc, fwdCnt uint32
}

// parse copies the header out of a packet and returns how many payload bytes
// the chain has after it. ok is false when the chain is shorter than a header.
func parse(c *queue.Chain) (h header, payload int, ok bool) {
	var raw [headerLen]byte
	if c.CopyOut(raw[:], 0) < headerLen {
		return header{}, 0, false
	}
	le := binary.LittleEndian
	return header{
		srcCID:   le.Uint64(raw[0:]),
		dstCID:   le.Uint64(raw[8:]),
		srcPort:  le.Uint32(raw[16:]),
		dstPort:  le.Uint32(raw[20:]),
		len:      le.Uint32(raw[24:]),
		kind:     le.Uint16(raw[28:]),
		op:       le.Uint16(raw[30:]),
		flags:    le.Uint32(raw[32:]),
		bufAlloc: le.Uint32(raw[36:]),
		fwdCnt:   le.Uint32(raw[40:]),
	}, c.ReadLen() - headerLen, true
}

func (h header) encode() (raw [headerLen]byte) {
	le := binary.LittleEndian
	p := raw[:0]
	p = le.AppendUint64(p, h.srcCID)
	p = le.AppendUint64(p, h.dstCID)
	p = le.AppendUint32(p, h.srcPort)
	p = le.AppendUint32(p, h.dstPort)
	p = le.AppendUint32(p, h.len)
	p = le.AppendUint16(p, h.kind)
	p = le.AppendUint16(p, h.op)
	p = le.AppendUint32(p, h.flags)
	p = le.AppendUint32(p, h.bufAlloc)
	le.AppendUint32(p, h.fwdCnt)
	return raw
}

// reset is the answer to a packet that belongs to no stream.
func (h header) reset() header {
	return header{
		srcCID: h.dstCID, dstCID: h.srcCID, srcPort: h.dstPort, dstPort: h.srcPort,
		kind: h.kind, op: opRst,
	}
}
