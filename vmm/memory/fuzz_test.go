package memory

import (
	"encoding/binary"
	"errors"
	"testing"
)

// FuzzAccess does accesses of all kinds as the input says: one byte of kind, nine
// of address and length. What lies inside a region works, everything else is an
// *Error, and the bytes around the regions stay as they are.
func FuzzAccess(f *testing.F) {
	op := func(kind byte, gpa uint64, n byte) []byte {
		return append(binary.LittleEndian.AppendUint64([]byte{kind}, gpa), n)
	}
	f.Add(append(op(0, 0x1000, 64), op(1, 0x103f, 2)...))
	f.Add(append(op(7, 0x2010, 16), op(8, 0x1fff, 2)...))
	f.Add(append(op(9, 0x1002, 0), op(10, 0x1ffffffffffffffe, 255)...))
	f.Add(append(op(5, 0x1039, 0), op(6, 0x103a, 0)...))
	f.Fuzz(func(t *testing.T, script []byte) {
		const guard = 64
		a, b := make([]byte, 64+2*guard), make([]byte, 32+2*guard)
		m, err := FromRegions(Region{0x1000, a[guard : guard+64 : guard+64]}, Region{0x2000, b[guard : guard+32 : guard+32]})
		if err != nil {
			t.Fatal(err)
		}
		for ; len(script) >= 10; script = script[10:] {
			gpa, n := binary.LittleEndian.Uint64(script[1:]), uint64(script[9])
			n, even, err := access(m, script[0]%11, GPA(gpa), n)
			inside := gpa >= 0x1000 && gpa < 0x1040 && n <= 0x1040-gpa || gpa >= 0x2000 && gpa < 0x2020 && n <= 0x2020-gpa
			if want := inside && (!even || gpa%2 == 0); want != (err == nil) {
				t.Fatalf("kind %d at %#x, %d bytes: %v", script[0]%11, gpa, n, err)
			}
			var e *Error
			if err != nil && (!errors.As(err, &e) || e.GPA != GPA(gpa)) {
				t.Errorf("error %v at %#x", err, gpa)
			}
		}
		for _, g := range [][]byte{a[:guard], a[guard+64:], b[:guard], b[guard+32:]} {
			for i, v := range g {
				if v != 0 {
					t.Fatalf("byte %d of a guard was written", i)
				}
			}
		}
	})
}

// access does one, and returns how many bytes it was for and whether it wants an
// even address.
func access(m *Memory, kind byte, gpa GPA, n uint64) (_ uint64, even bool, err error) {
	p := make([]byte, n)
	switch kind {
	case 0:
		_, err = m.Slice(gpa, n)
	case 1:
		_, err = m.Uint16(gpa)
		n = 2
	case 2:
		_, err = m.Uint32(gpa)
		n = 4
	case 3:
		_, err = m.Uint64(gpa)
		n = 8
	case 4:
		n, err = 2, m.PutUint16(gpa, 0xffff)
	case 5:
		n, err = 4, m.PutUint32(gpa, 0xffffffff)
	case 6:
		n, err = 8, m.PutUint64(gpa, 1<<64-1)
	case 7:
		for i := range p {
			p[i] = 0xaa
		}
		err = m.WriteAt(p, gpa)
	case 8:
		err = m.ReadAt(p, gpa)
	case 9:
		n, even, err = 2, true, m.StoreUint16(gpa, 0xffff)
	case 10:
		err = m.Discard(gpa, n)
	}
	return n, even, err
}
