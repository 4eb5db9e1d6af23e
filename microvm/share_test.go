package microvm

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
)

// Each volume is a share, and the agent is told of tags, not of host paths.
func TestShareVolumes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "one")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	shares, told, err := shareVolumes([]workload.Volume{{Host: dir, Guest: "/a"}, {Host: file, Guest: "/b/c", ReadOnly: true}})
	if err != nil {
		t.Fatal(err)
	}
	if want := []Share{{Dir: dir, Tag: "share0"}, {Dir: file, Tag: "share1", ReadOnly: true}}; !slices.Equal(shares, want) {
		t.Errorf("shares %+v, want %+v", shares, want)
	}
	want := []agentproto.Share{{Tag: "share0", Guest: "/a"}, {Tag: "share1", Guest: "/b/c", ReadOnly: true, File: "file"}}
	if !slices.Equal(told, want) {
		t.Errorf("the agent is told %+v, want %+v", told, want)
	}
	s := (&machine{shares: told}).start(workload.Spec{Volumes: []workload.Volume{{Host: dir, Guest: "/a"}}})
	if s.Spec.Volumes != nil || len(s.Shares) != 2 {
		t.Errorf("the agent is told %+v", s)
	}
}

func TestVolumesRefused(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		volumes []workload.Volume
		want    string
	}{
		{[]workload.Volume{{Host: dir, Guest: "/a"}, {Host: filepath.Join(dir, "none"), Guest: "/b"}}, "no such file"},
		{make([]workload.Volume, maxVolumes+1), "9 volumes: a microVM has 8 at most"},
	} {
		if s, _, err := shareVolumes(tt.volumes); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, %v; want %q", s, err, tt.want)
		}
	}
}

func TestInodesOf(t *testing.T) {
	for _, c := range []struct {
		descriptors uint64
		devices     int
		want        int
	}{
		{1024, 1, 512},
		{1024, 2, 256},
		{1 << 20, 1, 1 << 18},
		{1 << 20, 8, 1 << 16},
		{math.MaxUint64, 2, 1 << 18},
		{math.MaxUint64, 8, 1 << 16},
	} {
		if got := inodesOf(c.descriptors, c.devices); got != c.want {
			t.Errorf("%d descriptors, %d devices: %d inodes each, want %d", c.descriptors, c.devices, got, c.want)
		}
	}
}
