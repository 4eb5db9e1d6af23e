package microvm

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm/virtio/fs"
)

// maxVolumes bounds the volumes of a machine, each of which is a device.
const maxVolumes = 8

// shareVolumes makes a share of each volume, and says what the agent is told of
// it: tags, not paths of the host.
func shareVolumes(volumes []workload.Volume) ([]Share, []agentproto.Share, error) {
	if len(volumes) > maxVolumes {
		return nil, nil, &workload.Error{Op: "make the microVM", Err: fmt.Errorf("%d volumes: a microVM has %d at most", len(volumes), maxVolumes)}
	}
	var shares []Share
	var told []agentproto.Share
	for i, v := range volumes {
		info, err := os.Stat(v.Host)
		if err != nil {
			return nil, nil, &workload.Error{Op: "volume " + v.Host, Err: err}
		}
		s := Share{Dir: v.Host, Tag: fmt.Sprintf("share%d", i), ReadOnly: v.ReadOnly}
		a := agentproto.Share{Tag: s.Tag, Guest: v.Guest, ReadOnly: v.ReadOnly}
		if !info.IsDir() {
			a.File = fs.FileName
		}
		shares, told = append(shares, s), append(told, a)
	}
	return shares, told, nil
}

// maxKnown bounds the files that a machine's guest may know of all its shares at
// one moment: each is an open descriptor, and 130 bytes of the monitor's heap.
const maxKnown = 2 * fs.DefaultMaxInodes

// raiseFiles lets this process and its monitor open as many files as a guest may
// know of shares, where that is the caller's to decide (CAP_SYS_RESOURCE).
func raiseFiles() {
	const want = 2 * maxKnown
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil && lim.Max < want {
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: want, Max: want}) // else maxInodes says how many
	}
}

// maxInodes is how many files the guest may know of each of a machine's shares.
func maxInodes(devices int) int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		lim.Cur = 1024
	}
	return inodesOf(lim.Cur, devices)
}

// inodesOf is each device's part of half the descriptors that there are.
func inodesOf(descriptors uint64, devices int) int {
	return int(min(min(descriptors/2, maxKnown)/uint64(devices), fs.DefaultMaxInodes))
}
