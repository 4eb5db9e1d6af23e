package microvm

import (
	"errors"
	"fmt"
	"io"
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

// deviceList is devices in the making, in the order the guest sees them: disks are
// vda, vdb, ..., interfaces eth0, eth1, ...
type deviceList []virtio.Device

func (l *deviceList) add(what string, d virtio.Device, err error) error {
	if err != nil {
		return &workload.Error{Op: "make the microVM", Err: fmt.Errorf("%s: %w", what, err)}
	}
	*l = append(*l, d)
	return nil
}

// open makes the devices that a machine boots with, whether it is saved or not.
func (l *deviceList) open(h *Hardware, o BootOptions) error {
	for i, d := range h.Disks {
		disk, err := d.open(o.files.take(numbered(fileDisk, i)))
		if err := l.add("disk "+d.Path, disk, err); err != nil {
			return err
		}
	}
	if h.Console {
		*l = append(*l, console.New(console.Options{In: o.ConsoleInput, Out: o.Console}))
	}
	if h.Balloon {
		*l = append(*l, balloon.New(balloon.Options{}))
	}
	*l = append(*l, rng.New())
	return nil
}

// openVsock makes the device whose sockets are those of a Unix socket of the host, and
// returns what leads there.
func (l *deviceList) openVsock(h *Hardware, o BootOptions) (io.Closer, error) {
	sockets, bridge, err := h.openVsock(o.files)
	if err != nil {
		return nil, &workload.Error{Op: "bridge the guest's sockets", Err: err}
	}
	*l = append(*l, sockets)
	return bridge, nil
}

// plug makes the devices that a restored machine may have in the slots of the saved
// one. They come last in every machine.
func (l *deviceList) plug(h *Hardware, o BootOptions) error {
	for i, n := range h.Networks {
		nic, err := n.open(o.files.take(numbered(fileTap, i)))
		if err := l.add("network", nic, err); err != nil {
			return err
		}
	}
	for i, s := range h.Shares {
		share, err := s.open(o.files.take(numbered(fileShare, i)), maxInodes(len(h.Shares)))
		if err := l.add("share "+s.Dir, share, err); err != nil {
			return err
		}
	}
	return nil
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
	o := net.Options{MAC: net.RandomMAC()}
	if n.MAC != nil {
		o.MAC = [6]byte(n.MAC)
	}
	if limit := (rate.Limit{Bytes: n.BytesPerSecond, Ops: n.PacketsPerSecond}); limit != (rate.Limit{}) {
		o.TX, o.RX = rate.New(limit), rate.New(limit)
	}
	backend, closer, err := n.openBackend(f)
	if err != nil {
		return nil, err
	}
	o.Backend = backend
	nic, err := net.New(o)
	if err != nil {
		return nil, errors.Join(err, closer.Close())
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

func (l deviceList) close() error {
	var errs error
	for _, d := range l {
		errs = errors.Join(errs, d.Close())
	}
	return errs
}
