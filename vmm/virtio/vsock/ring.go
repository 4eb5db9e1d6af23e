package vsock

// ring is a byte queue of BufferSize bytes. Its storage is made when the first
// byte comes.
type ring struct {
	buf   []byte
	start int
	n     int
}

func (r *ring) free() int { return BufferSize - r.n }

// spaces returns where the next n bytes go; n must not exceed free.
func (r *ring) spaces(n int) [2][]byte {
	if r.buf == nil {
		r.buf = make([]byte, BufferSize)
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
