package bus

import (
	"bytes"
	"fmt"
	"math"
	"testing"
)

// recorder notes the accesses it gets and answers reads with its offsets.
type recorder struct{ log []string }

func (r *recorder) Read(off uint64, p []byte) {
	r.log = append(r.log, fmt.Sprintf("r%d+%d", off, len(p)))
	for i := range p {
		p[i] = byte(off) + byte(i)
	}
}

func (r *recorder) Write(off uint64, p []byte) {
	r.log = append(r.log, fmt.Sprintf("w%d=%x", off, p))
}

func TestRegister(t *testing.T) {
	for _, c := range []struct {
		name       string
		base, size uint64
		ok         bool
	}{
		{"before", 0xf00, 0x100, true},
		{"after", 0x1100, 0x10, true},
		{"same", 0x1000, 0x100, false},
		{"inside", 0x1010, 1, false},
		{"around", 0xf00, 0x400, false},
		{"over the start", 0xfff, 2, false},
		{"over the end", 0x10ff, 2, false},
		{"empty", 0x5000, 0, false},
		{"wraps", math.MaxUint64, 2, false},
		{"last byte of all", math.MaxUint64, 1, true},
		{"nearly everything below", 0, 0x1000, true},
		{"everything", 0, math.MaxUint64, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b Bus
			if err := b.Register(0x1000, 0x100, &recorder{}); err != nil {
				t.Fatal(err)
			}
			if err := b.Register(c.base, c.size, &recorder{}); (err == nil) != c.ok {
				t.Errorf("[%#x, +%#x): %v", c.base, c.size, err)
			}
		})
	}
}

func TestDispatch(t *testing.T) {
	var b Bus
	low, high := &recorder{}, &recorder{}
	for base, h := range map[uint64]*recorder{0x1000: low, 0x2000: high} {
		if err := b.Register(base, 8, h); err != nil {
			t.Fatal(err)
		}
	}
	p := make([]byte, 4)
	if !b.Read(0x1004, p) || !bytes.Equal(p, []byte{4, 5, 6, 7}) {
		t.Errorf("read % x", p)
	}
	for _, addr := range []uint64{0, 0xfff, 0x1005, 0x1008, 0x2008, math.MaxUint64} {
		p := make([]byte, 4)
		if b.Read(addr, p) || !bytes.Equal(p, []byte{0xff, 0xff, 0xff, 0xff}) {
			t.Errorf("read at %#x: % x", addr, p)
		}
		if b.Write(addr, p) {
			t.Errorf("write at %#x was claimed", addr)
		}
	}
	if !b.Write(0x2006, []byte{0xab, 0xcd}) {
		t.Error("write was not claimed")
	}
	if got := fmt.Sprint(low.log, high.log); got != "[r4+4] [w6=abcd]" {
		t.Errorf("devices saw %s", got)
	}
}
