package memory

import (
	"encoding/binary"
	"sync/atomic"
)

// Slice returns the n bytes of guest memory at gpa, shared with the guest, with
// no capacity beyond them. gpa must lie in a region even when n is 0.
func (m *Memory) Slice(gpa GPA, n uint64) ([]byte, error) { return m.find(gpa, n) }

// ReadAt copies len(p) bytes from guest memory at gpa to p, or nothing.
func (m *Memory) ReadAt(p []byte, gpa GPA) error {
	b, err := m.find(gpa, uint64(len(p)))
	if err != nil {
		return err
	}
	copy(p, b)
	return nil
}

// WriteAt copies p to guest memory at gpa, or nothing.
func (m *Memory) WriteAt(p []byte, gpa GPA) error {
	b, err := m.find(gpa, uint64(len(p)))
	if err != nil {
		return err
	}
	copy(b, p)
	return nil
}

// Uint16 reads a little-endian value at gpa, of any alignment.
func (m *Memory) Uint16(gpa GPA) (uint16, error) {
	b, err := m.find(gpa, 2)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint16(b), nil
}

// Uint32 reads a little-endian value at gpa, of any alignment.
func (m *Memory) Uint32(gpa GPA) (uint32, error) {
	b, err := m.find(gpa, 4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

// Uint64 reads a little-endian value at gpa, of any alignment.
func (m *Memory) Uint64(gpa GPA) (uint64, error) {
	b, err := m.find(gpa, 8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// PutUint16 writes a little-endian value at gpa, of any alignment.
func (m *Memory) PutUint16(gpa GPA, v uint16) error {
	b, err := m.find(gpa, 2)
	if err == nil {
		binary.LittleEndian.PutUint16(b, v)
	}
	return err
}

// PutUint32 writes a little-endian value at gpa, of any alignment.
func (m *Memory) PutUint32(gpa GPA, v uint32) error {
	b, err := m.find(gpa, 4)
	if err == nil {
		binary.LittleEndian.PutUint32(b, v)
	}
	return err
}

// PutUint64 writes a little-endian value at gpa, of any alignment.
func (m *Memory) PutUint64(gpa GPA, v uint64) error {
	b, err := m.find(gpa, 8)
	if err == nil {
		binary.LittleEndian.PutUint64(b, v)
	}
	return err
}

// LoadUint16 reads a ring index or flags field at gpa, which must be even, as
// one sequentially consistent access: reads after it see at least what the
// guest wrote before it wrote the value.
func (m *Memory) LoadUint16(gpa GPA) (uint16, error) {
	word, shift, err := m.word(gpa)
	if err != nil {
		return 0, err
	}
	return uint16(atomic.LoadUint32(word) >> shift), nil
}

// StoreUint16 writes a ring index or flags field at gpa, which must be even, as
// one sequentially consistent access: a guest that sees it sees every earlier
// write, and a later LoadUint16 is not moved before it (so the device may
// publish the used index and then look at the guest's event index).
//
// Go has no 16-bit atomics: the value goes in by compare-and-swap of the 32-bit
// word that holds it, so a neighbouring field written by the guest meanwhile
// survives.
func (m *Memory) StoreUint16(gpa GPA, v uint16) error {
	word, shift, err := m.word(gpa)
	if err != nil {
		return err
	}
	for {
		old := atomic.LoadUint32(word)
		if atomic.CompareAndSwapUint32(word, old, old&^(0xffff<<shift)|uint32(v)<<shift) {
			return nil
		}
	}
}

// word finds the aligned 32-bit word around the 16-bit field at gpa and the
// field's shift in it (the host is little-endian).
func (m *Memory) word(gpa GPA) (*uint32, uint, error) {
	if gpa%2 != 0 {
		return nil, 0, &Error{gpa, 2, ErrMisaligned}
	}
	b, err := m.find(gpa&^3, 4)
	if err != nil {
		return nil, 0, &Error{gpa, 2, ErrOutOfRange}
	}
	return wordPointer(b), uint(gpa&2) * 8, nil
}
