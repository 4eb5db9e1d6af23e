// Package blk is a read-only virtio block device (virtio 1.2 §5.2).
//
// The disk is a file or block device that does not change while it is in use.
// Reads go from the host's page cache straight into the guest's buffers
// (preadv on guest memory): nothing is copied in between and nothing is
// allocated a request.
package blk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/duplex-run/duplex/vmm/virtio"
)

const (
	// SectorSize is the unit of capacity and addresses, whatever the disk (§5.2.4).
	SectorSize = 512
	// MaxRequest bounds one read in bytes, so that no request holds the device
	// for long; larger ones fail with IOERR. Linux asks for 1.25 MiB at most
	// unless its administrator raises max_sectors_kb.
	MaxRequest = 64 << 20

	queueSize = 128
)

// Feature bits (§5.2.3).
const (
	featureSegMax = 1 << 2
	featureRO     = 1 << 5
)

// Device is the block device; it implements virtio.Device.
type Device struct {
	engine virtio.Engine
	file   *os.File
	size   int64
	id     [idLen]byte
	config []byte
	iov    [][]byte // of the request under way

	closing sync.Once
	closed  error
}

// Open makes a device of the file at path, opened for reading only. Its size
// must be a multiple of SectorSize. The guest reads the first 20 bytes of id as
// the disk's serial number (/sys/block/vda/serial).
func Open(path, id string) (*Device, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	size, err := diskSize(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open disk %s: %w", path, err)
	}
	d := &Device{file: f, size: size, config: make([]byte, 16)}
	copy(d.id[:], id)
	// struct virtio_blk_config (§5.2.4): capacity, size_max, seg_max.
	binary.LittleEndian.PutUint64(d.config[0:], uint64(size/SectorSize))
	binary.LittleEndian.PutUint32(d.config[12:], queueSize-2)
	return d, nil
}

// diskSize returns the size in bytes of a file that can be a disk.
func diskSize(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if m := info.Mode(); !m.IsRegular() && m&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice {
		return 0, errors.New("neither a file nor a block device")
	}
	size, err := f.Seek(0, io.SeekEnd) // Stat has no size for a block device
	if err == nil && size%SectorSize != 0 {
		err = fmt.Errorf("%d bytes is not a multiple of %d", size, SectorSize)
	}
	return size, err
}

// Type implements virtio.Device.
func (d *Device) Type() uint32 { return virtio.TypeBlock }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return featureSegMax | featureRO }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize} }

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(offset uint64, p []byte) {
	virtio.ReadConfigSpace(d.config, offset, p)
}

// WriteConfig implements virtio.Device; nothing is writable.
func (d *Device) WriteConfig(uint64, []byte) {}

// Activate implements virtio.Device.
func (d *Device) Activate(a virtio.Activation) error {
	d.engine.Start(a)
	return nil
}

// Kick implements virtio.Device.
func (d *Device) Kick(q int) { d.engine.Serve(q, d.handle) }

// Reset implements virtio.Device.
func (d *Device) Reset() { d.engine.Stop() }

// Close implements virtio.Device.
func (d *Device) Close() error {
	d.closing.Do(func() {
		d.Reset()
		d.closed = d.file.Close()
	})
	return d.closed
}
