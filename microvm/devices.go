package microvm

import (
	"errors"
	"fmt"

	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/balloon"
	"github.com/duplex-run/duplex/vmm/virtio/blk"
	"github.com/duplex-run/duplex/vmm/virtio/console"
	"github.com/duplex-run/duplex/vmm/virtio/fs"
	"github.com/duplex-run/duplex/vmm/virtio/net"
	"github.com/duplex-run/duplex/vmm/virtio/rate"
	"github.com/duplex-run/duplex/vmm/virtio/rng"
)

// open makes the devices, in the order the guest sees them: disks are vda, vdb,
// ..., interfaces eth0, eth1, ... On error none is left open.
func (h *Hardware) open(o BootOptions) (_ []virtio.Device, err error) {
	var devices []virtio.Device
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(devices))
		}
	}()
	add := func(what string, d virtio.Device, err error) error {
		if err != nil {
			return &workload.Error{Op: "make the microVM", Err: fmt.Errorf("%s: %w", what, err)}
		}
		devices = append(devices, d)
		return nil
	}
	for _, d := range h.Disks {
		disk, err := d.open()
		if err := add("disk "+d.Path, disk, err); err != nil {
			return devices, err
		}
	}
	for _, n := range h.Networks {
		nic, err := n.open()
		if err := add("network", nic, err); err != nil {
			return devices, err
		}
	}
	for _, s := range h.Shares {
		share, err := fs.New(fs.Options{Dir: s.Dir, Tag: s.Tag, ReadOnly: s.ReadOnly, MaxInodes: maxInodes(len(h.Shares))})
		if err := add("share "+s.Dir, share, err); err != nil {
			return devices, err
		}
	}
	if h.Console {
		devices = append(devices, console.New(console.Options{In: o.ConsoleInput, Out: o.Console}))
	}
	if h.Balloon {
		devices = append(devices, balloon.New(balloon.Options{}))
	}
	return append(devices, rng.New()), nil
}

func (d *Disk) open() (*blk.Device, error) {
	return blk.Open(blk.Options{
		Path: d.Path, ID: d.ID, ReadOnly: d.ReadOnly, Direct: d.Direct, Queues: d.Queues,
		Limit: rate.Limit{Bytes: d.BytesPerSecond, Ops: d.OpsPerSecond},
	})
}

func (n *Network) open() (*net.Device, error) {
	mac := net.RandomMAC()
	if n.MAC != nil {
		mac = [6]byte(n.MAC)
	}
	if n.Tap == "" {
		return nil, errors.New("there is no user-mode network yet")
	}
	tap, err := net.OpenTAP(n.Tap)
	if err != nil {
		return nil, err
	}
	nic, err := net.New(net.Options{Backend: tap, MAC: mac})
	if err != nil {
		return nil, errors.Join(err, tap.Close())
	}
	return nic, nil
}

func closeAll(devices []virtio.Device) error {
	var errs error
	for _, d := range devices {
		errs = errors.Join(errs, d.Close())
	}
	return errs
}
