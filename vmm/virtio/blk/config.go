package blk

import (
	"encoding/binary"

	"github.com/duplex-run/duplex/vmm/virtio"
)

// Feature bits (§5.2.3).
const (
	featureSegMax      = 1 << 2
	featureRO          = 1 << 5
	featureBlkSize     = 1 << 6
	featureFlush       = 1 << 9
	featureConfigWCE   = 1 << 11
	featureMQ          = 1 << 12
	featureDiscard     = 1 << 13
	featureWriteZeroes = 1 << 14

	featuresReadOnly  = featureSegMax | featureBlkSize | featureMQ | featureRO
	featuresReadWrite = featureSegMax | featureBlkSize | featureMQ | featureFlush | featureConfigWCE |
		featureDiscard | featureWriteZeroes
)

// Limits of DISCARD and WRITE_ZEROES, that no request takes long.
const (
	maxDiscardSegments = 16
	maxDiscardSectors  = 1 << 30 / SectorSize // of a segment
	maxZeroSegments    = 1                    // they may have to be written
	maxZeroSectors     = MaxRequest / SectorSize
)

// struct virtio_blk_config (§5.2.4), in bytes.
const (
	configSize      = 60
	configWriteback = 32
)

// configSpace is the configuration space of a disk, whose write cache is on.
func configSpace(f *file, queues int) []byte {
	p := make([]byte, configSize)
	le := binary.LittleEndian
	le.PutUint64(p[0:], uint64(f.size/SectorSize)) // capacity
	le.PutUint32(p[12:], queueSize-2)              // seg_max
	le.PutUint32(p[20:], uint32(f.align.offset))   // blk_size
	p[configWriteback] = 1
	le.PutUint16(p[34:], uint16(queues))                    // num_queues
	le.PutUint32(p[36:], maxDiscardSectors)                 // max_discard_sectors
	le.PutUint32(p[40:], maxDiscardSegments)                // max_discard_seg
	le.PutUint32(p[44:], uint32(f.align.offset/SectorSize)) // discard_sector_alignment
	le.PutUint32(p[48:], maxZeroSectors)                    // max_write_zeroes_sectors
	le.PutUint32(p[52:], maxZeroSegments)                   // max_write_zeroes_seg
	p[56] = 1                                               // write_zeroes_may_unmap
	return p
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(offset uint64, p []byte) {
	virtio.ReadConfigSpace(d.config, offset, p)
	if i := configWriteback - offset; offset <= configWriteback && i < uint64(len(p)) && !d.wce.Load() {
		p[i] = 0
	}
}

// WriteConfig implements virtio.Device: a driver that negotiated CONFIG_WCE
// switches the write cache on and off.
func (d *Device) WriteConfig(offset uint64, p []byte) {
	if offset == configWriteback && len(p) == 1 && d.agreed.Load()&featureConfigWCE != 0 {
		d.wce.Store(p[0] != 0)
	}
}

// writeThrough says whether a write has to be stable when it is answered
// (§5.2.6.2).
func (d *Device) writeThrough() bool {
	return d.agreed.Load()&featureFlush == 0 || !d.wce.Load()
}
