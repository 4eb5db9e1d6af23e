package balloon

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/duplex-run/duplex/vmm/virtio"
)

// ownSize is the size of the device's own state: how many pages are asked for and
// there (le32 each), whether the statistics' buffer is held, and its head (le16
// each).
const ownSize = 12

// Save implements virtio.Saver.
func (d *Device) Save() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	own := binary.LittleEndian.AppendUint32(nil, d.target)
	own = binary.LittleEndian.AppendUint32(own, d.actual)
	held := uint16(0)
	if d.stats.held {
		held = 1
	}
	own = binary.LittleEndian.AppendUint16(own, held)
	own = binary.LittleEndian.AppendUint16(own, d.stats.head)
	d.stop()
	return own, nil
}

// Restore implements virtio.Saver.
func (d *Device) Restore(own []byte, a *virtio.Activation) error {
	if len(own) != ownSize {
		return virtio.ErrOwnState
	}
	if a != nil {
		if err := d.Activate(*a); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.target, d.actual = binary.LittleEndian.Uint32(own), binary.LittleEndian.Uint32(own[4:])
	held, head := binary.LittleEndian.Uint16(own[8:]), binary.LittleEndian.Uint16(own[10:])
	if held == 0 {
		return nil
	}
	if held > 1 || d.act == nil || d.statsQueue() == nil {
		return fmt.Errorf("%w: %w", virtio.ErrOwnState, errors.New("statistics without a queue for them"))
	}
	d.stats.held, d.stats.head = true, head
	return nil
}
