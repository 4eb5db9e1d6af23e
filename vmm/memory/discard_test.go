package memory

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

func TestDiscard(t *testing.T) {
	for _, kind := range []struct {
		name string
		make func(*testing.T) *Memory
	}{
		{"mapped", func(t *testing.T) *Memory {
			m, err := New(4 * pageSize)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = m.Close() })
			return m
		}},
		{"from regions", func(t *testing.T) *Memory {
			m, err := FromRegions(Region{0, make([]byte, 4*pageSize)})
			if err != nil {
				t.Fatal(err)
			}
			return m
		}},
	} {
		for _, c := range []struct {
			name       string
			gpa        GPA
			n          uint64
			start, end int // what is zero then
		}{
			{"whole", 0, 4 * pageSize, 0, 4 * pageSize},
			{"a page", pageSize, pageSize, pageSize, 2 * pageSize},
			{"rounded inwards", 1, 3*pageSize - 2, pageSize, 2 * pageSize},
			{"less than a page", 1, pageSize, 0, 0},
			{"across two pages, neither whole", 100, pageSize + 50, 0, 0},
			{"to the end", 3*pageSize - 1, pageSize + 1, 3 * pageSize, 4 * pageSize},
			{"nothing", pageSize, 0, 0, 0},
		} {
			t.Run(kind.name+"/"+c.name, func(t *testing.T) {
				m := kind.make(t)
				all := m.Regions()[0].Bytes
				for _, discard := range []func() error{
					func() error { return m.Discard(c.gpa, c.n) },
					func() error {
						b, _ := m.Slice(c.gpa, c.n)
						if len(b) == 0 {
							return nil
						}
						return m.DiscardBytes(b)
					},
				} {
					for i := range all {
						all[i] = 0xaa
					}
					want := bytes.Clone(all)
					clear(want[c.start:c.end])
					if err := discard(); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(all, want) {
						t.Error("other bytes are zero than should be")
					}
				}
			})
		}
	}
}

// What is discarded costs the host nothing until it is touched.
func TestDiscardGivesMemoryBack(t *testing.T) {
	m, err := New(16 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	b, _ := m.Slice(0, 16<<20)
	for i := 0; i < len(b); i += pageSize {
		b[i] = 1
	}
	if n, err := m.Resident(); err != nil || n != 16<<20 {
		t.Fatalf("%d bytes resident, %v", n, err)
	}
	if err := m.Discard(4<<20, 8<<20); err != nil {
		t.Fatal(err)
	}
	if n, err := m.Resident(); err != nil || n != 8<<20 {
		t.Errorf("%d bytes resident after 8 MiB were discarded, %v", n, err)
	}
}

func TestDiscardRefuses(t *testing.T) {
	m := twoRegions(t)
	for _, c := range []struct {
		gpa GPA
		n   uint64
	}{{0x1000, 65}, {0x1040, 1}, {0x1030, 0x1000}, {0, pageSize}, {math.MaxUint64, 1}, {0x1000, math.MaxUint64}} {
		if err := m.Discard(c.gpa, c.n); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("%#x, %d bytes: %v", c.gpa, c.n, err)
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 64)} {
		if err := m.DiscardBytes(b); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("foreign slice of %d bytes: %v", len(b), err)
		}
	}
	r := m.Regions()[0].Bytes
	if err := m.DiscardBytes(r[:64:64]); err != nil {
		t.Errorf("own slice: %v", err)
	}
	if _, ok := offsetIn(r[8:16], r[:4]); ok {
		t.Error("a slice before the region is in it")
	}
	if _, ok := offsetIn(r[8:16], r[12:20]); ok {
		t.Error("a slice that reaches past the region is in it")
	}
}
