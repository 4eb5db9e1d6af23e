package virtio

// ReadConfigSpace answers ReadConfig from space, the device's configuration in
// its little-endian layout: bytes past its end read as zero.
func ReadConfigSpace(space []byte, offset uint64, p []byte) {
	clear(p)
	if offset < uint64(len(space)) {
		copy(p, space[offset:])
	}
}
