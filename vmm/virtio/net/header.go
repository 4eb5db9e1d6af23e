package net

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// HeaderLen is the length of struct virtio_net_hdr with num_buffers (§5.1.6).
	HeaderLen = 12
	// MaxFrame bounds an Ethernet frame in bytes, before segmentation: an IPv4
	// packet of 64 KiB with its Ethernet header (§5.1.6.3.1).
	MaxFrame = 65550
	// MaxSegments bounds the packets that segmentation makes of one frame.
	// Without a bound the host's kernel would cut 64 KiB into segments of a byte.
	MaxSegments = 2048

	maxPacket = HeaderLen + MaxFrame
	minFrame  = 14 // an Ethernet header
)

// Header.Flags (§5.1.6).
const (
	NeedsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	DataValid = 2 // VIRTIO_NET_HDR_F_DATA_VALID
)

// Header.GSOType (§5.1.6).
const (
	GSONone  = 0
	GSOTCPv4 = 1
	GSOTCPv6 = 4
)

const (
	tcpHeader     = 20 // without options
	tcpCsumOffset = 16
)

// ErrHeader reports a virtio_net_hdr that contradicts its frame or the
// negotiated features.
var ErrHeader = errors.New("bad virtio_net_hdr")

// Header is struct virtio_net_hdr (§5.1.6): what is left to do for a frame.
type Header struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16 // bytes of all headers, a hint
	GSOSize    uint16 // payload bytes of a segment
	CsumStart  uint16 // where the checksummed part begins
	CsumOffset uint16 // from CsumStart to the checksum
	NumBuffers uint16 // receive: buffers used
}

// ParseHeader reads the header at the start of p, of at least HeaderLen bytes.
func ParseHeader(p []byte) Header {
	_ = p[HeaderLen-1]
	le := binary.LittleEndian
	return Header{Flags: p[0], GSOType: p[1], HdrLen: le.Uint16(p[2:]), GSOSize: le.Uint16(p[4:]),
		CsumStart: le.Uint16(p[6:]), CsumOffset: le.Uint16(p[8:]), NumBuffers: le.Uint16(p[10:])}
}

// Put writes the header to the start of p, of at least HeaderLen bytes.
func (h Header) Put(p []byte) {
	_ = p[HeaderLen-1]
	le := binary.LittleEndian
	p[0], p[1] = h.Flags, h.GSOType
	le.PutUint16(p[2:], h.HdrLen)
	le.PutUint16(p[4:], h.GSOSize)
	le.PutUint16(p[6:], h.CsumStart)
	le.PutUint16(p[8:], h.CsumOffset)
	le.PutUint16(p[10:], h.NumBuffers)
}

// Sanitize returns what of a sender's header may go on with a frame of n bytes,
// given the negotiated features, and the number of packets that the frame is
// going to be. An error wraps ErrHeader: drop the frame.
func (h Header) Sanitize(n int, features uint64) (Header, int, error) {
	if n < minFrame || n > MaxFrame {
		return Header{}, 0, fmt.Errorf("%w: frame of %d bytes", ErrHeader, n)
	}
	var out Header
	if h.Flags&NeedsCsum != 0 {
		if features&FeatureCsum == 0 || h.CsumStart < minFrame || int(h.CsumStart)+int(h.CsumOffset)+2 > n {
			return Header{}, 0, fmt.Errorf("%w: checksum at %d+%d of %d", ErrHeader, h.CsumStart, h.CsumOffset, n)
		}
		out = Header{Flags: NeedsCsum, CsumStart: h.CsumStart, CsumOffset: h.CsumOffset}
	}
	if h.GSOType == GSONone {
		return out, 1, nil
	}
	return h.sanitizeGSO(out, n, features)
}

func (h Header) sanitizeGSO(out Header, n int, features uint64) (Header, int, error) {
	switch {
	case h.GSOType == GSOTCPv4 && features&FeatureHostTSO4 != 0:
	case h.GSOType == GSOTCPv6 && features&FeatureHostTSO6 != 0:
	default:
		return Header{}, 0, fmt.Errorf("%w: segmentation type %#x", ErrHeader, h.GSOType)
	}
	headers := int(h.CsumStart) + tcpHeader
	if out.Flags&NeedsCsum == 0 || h.CsumOffset != tcpCsumOffset || headers > n {
		return Header{}, 0, fmt.Errorf("%w: segmentation without a TCP checksum", ErrHeader)
	}
	if h.GSOSize == 0 {
		return Header{}, 0, fmt.Errorf("%w: segments of no bytes", ErrHeader)
	}
	segments := max(1, (n-headers+int(h.GSOSize)-1)/int(h.GSOSize))
	if segments > MaxSegments {
		return Header{}, 0, fmt.Errorf("%w: %d segments", ErrHeader, segments)
	}
	// A hint (§5.1.6.2.1): one that cannot be right is replaced.
	out.HdrLen = h.HdrLen
	if int(h.HdrLen) < headers || int(h.HdrLen) > n {
		out.HdrLen = uint16(headers)
	}
	out.GSOType, out.GSOSize = h.GSOType, h.GSOSize
	return out, segments, nil
}
