package microvm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/fs"
)

// maxVolumes bounds the volumes of a machine, each of which is a device.
const maxVolumes = 8

// share makes a file system device for each volume, and tells the agent of it.
func (m *machine) share(volumes []workload.Volume) ([]virtio.Device, error) {
	if len(volumes) > maxVolumes {
		return nil, &workload.Error{Op: "make the microVM", Err: fmt.Errorf("%d volumes: a microVM has %d at most", len(volumes), maxVolumes)}
	}
	var devices []virtio.Device
	for i, v := range volumes {
		o := fs.Options{Dir: v.Host, Tag: fmt.Sprintf("share%d", i), ReadOnly: v.ReadOnly, MaxInodes: maxInodes(len(volumes))}
		d, err := fs.New(o)
		if err != nil {
			for _, d := range devices {
				err = errors.Join(err, d.Close())
			}
			return nil, &workload.Error{Op: "volume " + v.Host, Err: err}
		}
		devices = append(devices, d)
		m.shares = append(m.shares, agentproto.Share{Tag: o.Tag, Guest: v.Guest, ReadOnly: v.ReadOnly, File: d.File()})
	}
	return devices, nil
}

// maxInodes is each device's part of half the descriptors of this process.
func maxInodes(devices int) int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		lim.Cur = 1024
	}
	return int(min(lim.Cur/2/uint64(devices), fs.DefaultMaxInodes))
}
