package state

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Errors of Decode.
var (
	ErrFormat  = errors.New("malformed state of a machine")
	ErrVersion = errors.New("state of a machine in another version")
)

// coder writes values to out, or reads them from in: one description of the
// layout serves both. After an error it reads zeros.
type coder struct {
	reading bool
	in, out []byte
	err     error
}

// take is the next n bytes of the input, or nil.
func (c *coder) take(n int) []byte {
	if c.err == nil && n > len(c.in) {
		c.err = fmt.Errorf("%w: it ends early", ErrFormat)
	}
	if c.err != nil {
		return nil
	}
	b := c.in[:n:n]
	c.in = c.in[n:]
	return b
}

func (c *coder) header() {
	v := uint32(Version)
	if !c.reading {
		c.out = append(c.out, magic...)
		c.u32(&v)
		return
	}
	if m := c.take(len(magic)); m != nil && string(m) != magic {
		c.err = fmt.Errorf("%w: it starts otherwise", ErrFormat)
	}
	c.u32(&v)
	if c.err == nil && v != Version {
		c.err = fmt.Errorf("%w: %d, this is %d", ErrVersion, v, Version)
	}
}

func (c *coder) u8(v *byte) {
	if !c.reading {
		c.out = append(c.out, *v)
		return
	}
	*v = 0
	if b := c.take(1); b != nil {
		*v = b[0]
	}
}

func (c *coder) bool(v *bool) {
	b := byte(0)
	if *v {
		b = 1
	}
	c.u8(&b)
	if c.err == nil && b > 1 {
		c.err = fmt.Errorf("%w: a truth value of %d", ErrFormat, b)
	}
	*v = b == 1
}

func (c *coder) u16(v *uint16) {
	if !c.reading {
		c.out = binary.LittleEndian.AppendUint16(c.out, *v)
		return
	}
	*v = 0
	if b := c.take(2); b != nil {
		*v = binary.LittleEndian.Uint16(b)
	}
}

func (c *coder) u32(v *uint32) {
	if !c.reading {
		c.out = binary.LittleEndian.AppendUint32(c.out, *v)
		return
	}
	*v = 0
	if b := c.take(4); b != nil {
		*v = binary.LittleEndian.Uint32(b)
	}
}

func (c *coder) u64(v *uint64) {
	if !c.reading {
		c.out = binary.LittleEndian.AppendUint64(c.out, *v)
		return
	}
	*v = 0
	if b := c.take(8); b != nil {
		*v = binary.LittleEndian.Uint64(b)
	}
}

// length is that of a list or a string of at most limit items.
func (c *coder) length(n, limit int) int {
	v := uint32(n)
	c.u32(&v)
	if c.reading && c.err == nil && uint64(v) > uint64(limit) {
		c.err = fmt.Errorf("%w: %d items, at most %d", ErrFormat, v, limit)
	}
	if c.err != nil {
		return 0
	}
	return int(v)
}

// bytes is a byte string of any length up to limit.
func (c *coder) bytes(p *[]byte, limit int) {
	n := c.length(len(*p), limit)
	if !c.reading {
		c.out = append(c.out, *p...)
		return
	}
	*p = append([]byte(nil), c.take(n)...)
}

// fixed is a structure of len(p) bytes, written without the zeros at its end.
func (c *coder) fixed(p []byte) {
	n := len(p)
	for !c.reading && n > 0 && p[n-1] == 0 {
		n--
	}
	n = c.length(n, len(p))
	if !c.reading {
		c.out = append(c.out, p[:n]...)
		return
	}
	clear(p[copy(p, c.take(n)):])
}

// list is a list of at most limit items, each of which takes a byte at least.
func list[T any](c *coder, items *[]T, limit int, item func(*coder, *T)) {
	n := c.length(len(*items), limit)
	if c.reading {
		if n > len(c.in) {
			c.err = fmt.Errorf("%w: %d items in %d bytes", ErrFormat, n, len(c.in))
			n = 0
		}
		*items = make([]T, n)
	}
	for i := range *items {
		item(c, &(*items)[i])
	}
}
