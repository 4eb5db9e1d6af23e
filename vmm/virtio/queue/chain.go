package queue

// Chain is one descriptor chain: a request of the driver, or buffers it offers.
// Its slices alias guest memory, so their contents may change at any moment:
// copy what has to be looked at more than once.
type Chain struct {
	// Head identifies the chain in Push.
	Head uint16
	// Readable is what the driver gives to the device, in order.
	Readable [][]byte
	// Writable is where the device may answer, in order.
	Writable [][]byte

	readLen, writeLen uint64

	owner *Queue // that Serve took the chain from
	kept  bool   // given to a handler and not returned to the driver yet
}

// ReadLen is the number of device-readable bytes, below 4 GiB.
func (c *Chain) ReadLen() int { return int(c.readLen) }

// WriteLen is the number of device-writable bytes, below 4 GiB.
func (c *Chain) WriteLen() int { return int(c.writeLen) }

// CopyOut copies readable bytes from offset off into p and returns how many;
// fewer than len(p) means that the chain ends there. off must not be negative.
func (c *Chain) CopyOut(p []byte, off int) int {
	return eachPart(c.Readable, off, len(p), func(part []byte, done int) { copy(p[done:], part) })
}

// CopyIn copies p to the writable bytes from offset off on and returns how many
// bytes had room. off must not be negative.
func (c *Chain) CopyIn(p []byte, off int) int {
	return eachPart(c.Writable, off, len(p), func(part []byte, done int) { copy(part, p[done:]) })
}

// eachPart calls f with the pieces of bufs from byte off on, n bytes at most,
// and returns how many bytes there were.
func eachPart(bufs [][]byte, off, n int, f func(part []byte, done int)) int {
	done := 0
	for _, b := range bufs {
		if done >= n {
			break
		}
		if off >= len(b) {
			off -= len(b)
			continue
		}
		b = b[off:]
		off = 0
		b = b[:min(len(b), n-done)]
		f(b, done)
		done += len(b)
	}
	return done
}

func (c *Chain) reset(head uint16) {
	c.Head = head
	c.Readable = c.Readable[:0]
	c.Writable = c.Writable[:0]
	c.readLen, c.writeLen = 0, 0
}
