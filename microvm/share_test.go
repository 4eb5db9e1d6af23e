package microvm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm/virtio"
)

// Each volume is a device, and the agent is told of tags, not of host paths.
func TestShares(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "one")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := new(machine)
	devices, err := m.share([]workload.Volume{{Host: dir, Guest: "/a"}, {Host: file, Guest: "/b/c", ReadOnly: true}})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		if d.Type() != virtio.TypeFS {
			t.Errorf("device of type %d", d.Type())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	want := []agentproto.Share{{Tag: "share0", Guest: "/a"}, {Tag: "share1", Guest: "/b/c", ReadOnly: true, File: "file"}}
	if len(m.shares) != 2 || m.shares[0] != want[0] || m.shares[1] != want[1] {
		t.Errorf("shares %+v, want %+v", m.shares, want)
	}
	s := start(workload.Spec{Volumes: []workload.Volume{{Host: dir, Guest: "/a"}}}, m.shares)
	if s.Spec.Volumes != nil || len(s.Shares) != 2 {
		t.Errorf("the agent is told %+v", s)
	}
}

func TestSharesRefused(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		volumes []workload.Volume
		want    string
	}{
		{[]workload.Volume{{Host: dir, Guest: "/a"}, {Host: filepath.Join(dir, "none"), Guest: "/b"}}, "no such file"},
		{make([]workload.Volume, maxVolumes+1), "9 volumes: a microVM has 8 at most"},
	} {
		if d, err := new(machine).share(tt.volumes); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, %v; want %q", d, err, tt.want)
		}
	}
}
