package mmio

import "encoding/binary"

// Empty is a place on the bus for a device that is not there: its device ID is 0,
// and a driver gives it up without complaint (§4.2.2.2).
type Empty struct{}

// Read is a bus handler's.
func (Empty) Read(off uint64, p []byte) {
	clear(p)
	if len(p) != 4 {
		return
	}
	switch off {
	case regMagicValue:
		binary.LittleEndian.PutUint32(p, magic)
	case regVersion:
		binary.LittleEndian.PutUint32(p, version)
	case regVendorID:
		binary.LittleEndian.PutUint32(p, vendorID)
	}
}

// Write is a bus handler's.
func (Empty) Write(uint64, []byte) {}
