package net_test

import (
	"errors"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio/net"
)

const offloads = net.FeatureCsum | net.FeatureHostTSO4 | net.FeatureHostTSO6

func TestSanitize(t *testing.T) {
	tso := net.Header{Flags: net.NeedsCsum, GSOType: net.GSOTCPv4, HdrLen: 54, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
	with := func(h net.Header, change func(*net.Header)) net.Header {
		change(&h)
		return h
	}
	for _, c := range []struct {
		name     string
		in, want net.Header
		n        int
		features uint64
		packets  int // 0: refused
	}{
		{"nothing to do", net.Header{}, net.Header{}, 60, offloads, 1},
		{"noise is cleared", net.Header{Flags: 0xfe, HdrLen: 9, GSOSize: 9, CsumStart: 9, CsumOffset: 9, NumBuffers: 9}, net.Header{}, 60, offloads, 1},
		{"checksum at the end", net.Header{Flags: 1, CsumStart: 34, CsumOffset: 24}, net.Header{Flags: 1, CsumStart: 34, CsumOffset: 24}, 60, offloads, 1},
		{"checksum past the end", net.Header{Flags: 1, CsumStart: 34, CsumOffset: 25}, net.Header{}, 60, offloads, 0},
		{"checksum sum overflows", net.Header{Flags: 1, CsumStart: 0xffff, CsumOffset: 0xffff}, net.Header{}, 60, offloads, 0},
		{"checksum in the Ethernet header", net.Header{Flags: 1, CsumStart: 13}, net.Header{}, 60, offloads, 0},
		{"checksum not negotiated", net.Header{Flags: 1, CsumStart: 34}, net.Header{}, 60, 0, 0},
		{"frame too short", net.Header{}, net.Header{}, 13, offloads, 0},
		{"frame too long", net.Header{}, net.Header{}, net.MaxFrame + 1, offloads, 0},
		{"TCPv4", tso, tso, 54 + 14480, offloads, 10},
		{"TCPv4 not negotiated", tso, net.Header{}, 14000, offloads &^ net.FeatureHostTSO4, 0},
		{"TCPv6 not negotiated", with(tso, func(h *net.Header) { h.GSOType = net.GSOTCPv6 }), net.Header{}, 14000, offloads &^ net.FeatureHostTSO6, 0},
		{"UDP fragmentation", with(tso, func(h *net.Header) { h.GSOType = 3 }), net.Header{}, 14000, offloads, 0},
		{"ECN", with(tso, func(h *net.Header) { h.GSOType |= 0x80 }), net.Header{}, 14000, offloads, 0},
		{"no checksum", with(tso, func(h *net.Header) { h.Flags = 0 }), net.Header{}, 14000, offloads, 0},
		{"no TCP checksum", with(tso, func(h *net.Header) { h.CsumOffset = 6 }), net.Header{}, 14000, offloads, 0},
		{"no segment size", with(tso, func(h *net.Header) { h.GSOSize = 0 }), net.Header{}, 14000, offloads, 0},
		{"segments of a byte", with(tso, func(h *net.Header) { h.GSOSize = 1 }), net.Header{}, 14000, offloads, 0},
		{"TCP header past the end", with(tso, func(h *net.Header) { h.CsumStart = 50 }), net.Header{}, 69, offloads, 0},
		{"lying header length", with(tso, func(h *net.Header) { h.HdrLen = 0xffff }), tso, 54 + 1448, offloads, 1},
		{"header length inside the headers", with(tso, func(h *net.Header) { h.HdrLen = 20 }), tso, 54 + 1449, offloads, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, packets, err := c.in.Sanitize(c.n, c.features)
			if got != c.want || packets != c.packets || (err != nil) != (c.packets == 0) || (err != nil && !errors.Is(err, net.ErrHeader)) {
				t.Errorf("got %+v, %d, %v; want %+v, %d", got, packets, err, c.want, c.packets)
			}
		})
	}
}

// What Sanitize lets through is within the frame, whatever comes in, and passes
// again unchanged.
func FuzzSanitize(f *testing.F) {
	f.Add([]byte{1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0}, 14000, uint64(offloads))
	f.Add([]byte{1, 4, 74, 0, 0x94, 5, 54, 0, 16, 0, 0, 0}, net.MaxFrame, uint64(offloads))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0}, 60, uint64(net.FeatureCsum))
	f.Fuzz(func(t *testing.T, raw []byte, n int, features uint64) {
		if len(raw) < net.HeaderLen {
			return
		}
		h, packets, err := net.ParseHeader(raw).Sanitize(n, features)
		if err != nil {
			if h != (net.Header{}) || packets != 0 {
				t.Errorf("refused, and yet %+v, %d", h, packets)
			}
			return
		}
		if packets < 1 || packets > net.MaxSegments {
			t.Errorf("%d packets", packets)
		}
		if h.Flags&^net.NeedsCsum != 0 || h.NumBuffers != 0 {
			t.Errorf("flags of the other direction: %+v", h)
		}
		if h.Flags != 0 && (features&net.FeatureCsum == 0 || int(h.CsumStart)+int(h.CsumOffset)+2 > n) {
			t.Errorf("checksum out of a frame of %d: %+v", n, h)
		}
		if h.GSOType != net.GSONone && (int(h.HdrLen) > n || int(h.HdrLen) < int(h.CsumStart)+20 || h.GSOSize == 0 ||
			features&(net.FeatureHostTSO4|net.FeatureHostTSO6) == 0) {
			t.Errorf("segmentation of a frame of %d: %+v", n, h)
		}
		again, _, err := h.Sanitize(n, features)
		if err != nil || again != h {
			t.Errorf("%+v the second time is %+v, %v", h, again, err)
		}
	})
}
