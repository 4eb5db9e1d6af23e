package microvm

import (
	"net"
	"strings"
	"testing"
)

func TestVCPUs(t *testing.T) {
	for _, c := range []struct {
		cpus  float64
		n     int
		limit float64
	}{{0, 1, 0}, {0.5, 1, 0.5}, {1, 1, 0}, {2.25, 3, 2.25}, {32, 32, 0}} {
		h := Hardware{CPUs: c.cpus}
		if n, limit := h.vcpus(); n != c.n || limit != c.limit {
			t.Errorf("%v CPUs: %d vCPUs limited to %v", c.cpus, n, limit)
		}
	}
}

func TestValidate(t *testing.T) {
	mac := func(s string) net.HardwareAddr {
		m, err := net.ParseMAC(s)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, c := range []struct {
		h    Hardware
		want string // in the error, "" for none
	}{
		{Hardware{}, ""},
		{Hardware{CPUs: 256}, "256 CPUs"},
		{Hardware{CPUs: -1}, "-1 CPUs"},
		{Hardware{Disks: make([]Disk, 17)}, ""},
		{Hardware{Disks: make([]Disk, 17), Balloon: true}, "19 devices, at most 18"},
		{Hardware{Slots: 17}, ""},
		{Hardware{Slots: 18}, "19 devices, at most 18"},
		{Hardware{Shares: []Share{{Dir: "/a", Tag: "a"}, {Dir: "/b", Tag: "b"}}}, ""},
		{Hardware{Shares: []Share{{Dir: "/a", Tag: "a"}, {Dir: "/b", Tag: "a"}}}, `tag "a"`},
		{Hardware{Shares: []Share{{Dir: "/a"}}}, "1 to 36 bytes"},
		{Hardware{Shares: []Share{{Dir: "/a", Tag: strings.Repeat("x", 37)}}}, "1 to 36 bytes"},
		{Hardware{Shares: []Share{{Dir: "/a", Tag: "a\n"}}}, "control"},
		{Hardware{Networks: []Network{{MAC: mac("02:00:00:00:00:01")}}}, ""},
		{Hardware{Networks: []Network{{MAC: mac("ff:ff:ff:ff:ff:ff")}}}, "MAC"},
		{Hardware{Networks: []Network{{MAC: mac("02:00:00:00:00:00:00:01")}}}, "MAC"},
		{Hardware{Networks: []Network{{Tap: "tap0", Publish: []string{"80:80"}}}}, "tap0"},
	} {
		err := c.h.validate()
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.h, err, c.want)
		}
	}
}
