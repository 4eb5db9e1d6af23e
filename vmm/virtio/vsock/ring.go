package vsock

// ring is a byte queue of BufferSize bytes.
type ring struct {
	buf   []byte
	start int
	n     int
}

func (r *ring) free() int { return BufferSize - r.n }

// spaces returns where the next n bytes go; n must not exceed free, and be 0
// without storage.
func (r *ring) spaces(n int) [2][]byte {
	if n == 0 {
		return [2][]byte{}
	}
	end := (r.start + r.n) % BufferSize
	first := min(n, BufferSize-end)
	r.n += n
	return [2][]byte{r.buf[end : end+first], r.buf[:n-first]}
}

// read takes up to len(p) bytes.
func (r *ring) read(p []byte) int {
	n := min(len(p), r.n)
	for done := 0; done < n; {
		k := copy(p[done:n], r.buf[r.start:])
		r.start = (r.start + k) % BufferSize
		done += k
	}
	r.n -= n
	return n
}

// ring gives the stream's buffer its storage, before the first byte comes. It is
// false when MaxConns streams have theirs: more than there are streams at once,
// as those that ended keep it until all of it is read.
func (c *Conn) ring() bool {
	if c.in.buf == nil {
		if c.dev.rings >= MaxConns {
			return false
		}
		c.dev.rings++
		c.in.buf = make([]byte, BufferSize)
	}
	return true
}

// dropRing lets go of the buffer and what is in it.
func (c *Conn) dropRing() {
	if c.in.buf != nil {
		c.dev.rings--
	}
	c.in = ring{}
}
