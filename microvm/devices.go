package microvm

import (
	"errors"
	"fmt"
	"os"

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
	for i, d := range h.Disks {
		disk, err := d.open(o.files.take(numbered(fileDisk, i)))
		if err := add("disk "+d.Path, disk, err); err != nil {
			return devices, err
		}
	}
	for i, n := range h.Networks {
		nic, err := n.open(o.files.take(numbered(fileTap, i)))
		if err := add("network", nic, err); err != nil {
			return devices, err
		}
	}
	for i, s := range h.Shares {
		share, err := s.open(o.files.take(numbered(fileShare, i)), maxInodes(len(h.Shares)))
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

// open makes the disk of f, or of its path when that is nil.
func (d *Disk) open(f *os.File) (*blk.Device, error) {
	o := blk.Options{
		Path: d.Path, ID: d.ID, ReadOnly: d.ReadOnly, Direct: d.Direct, Queues: d.Queues,
		Limit: rate.Limit{Bytes: d.BytesPerSecond, Ops: d.OpsPerSecond},
	}
	if f == nil {
		return blk.Open(o)
	}
	disk, err := blk.New(f, o)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return disk, nil
}

// open makes the interface of f, or of its TAP device when that is nil.
func (n *Network) open(f *os.File) (*net.Device, error) {
	mac := net.RandomMAC()
	if n.MAC != nil {
		mac = [6]byte(n.MAC)
	}
	if n.Tap == "" {
		return nil, errors.New("there is no user-mode network yet")
	}
	tap, err := openTAP(f, n.Tap)
	if err != nil {
		return nil, err
	}
	nic, err := net.New(net.Options{Backend: tap, MAC: mac})
	if err != nil {
		return nil, errors.Join(err, tap.Close())
	}
	return nic, nil
}

// open makes the file system of f, which stays the caller's, or of its path when
// that is nil.
func (s *Share) open(f *os.File, inodes int) (*fs.Device, error) {
	dir := s.Dir
	if f != nil {
		dir = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	}
	return fs.New(fs.Options{Dir: dir, Tag: s.Tag, ReadOnly: s.ReadOnly, MaxInodes: inodes})
}

func openTAP(f *os.File, name string) (*net.TAP, error) {
	if f != nil {
		return net.NewTAP(f)
	}
	return net.OpenTAP(name)
}

func closeAll(devices []virtio.Device) error {
	var errs error
	for _, d := range devices {
		errs = errors.Join(errs, d.Close())
	}
	return errs
}
