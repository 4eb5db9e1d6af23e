package memory

import (
	"bytes"
	"errors"
	"math"
	"sync"
	"testing"
)

// twoRegions is 64 bytes at 0x1000 and 32 at 0x2000.
func twoRegions(t testing.TB) *Memory {
	t.Helper()
	m, err := FromRegions(Region{0x1000, make([]byte, 64)}, Region{0x2000, make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSliceBounds(t *testing.T) {
	m := twoRegions(t)
	for _, c := range []struct {
		name string
		gpa  GPA
		n    uint64
		ok   bool
	}{
		{"whole first region", 0x1000, 64, true},
		{"whole second region", 0x2000, 32, true},
		{"last byte", 0x103f, 1, true},
		{"nothing, inside", 0x1000, 0, true},
		{"nothing, at the end", 0x1040, 0, false},
		{"one past the end", 0x1040, 1, false},
		{"runs past the end", 0x103f, 2, false},
		{"before the first", 0xfff, 1, false},
		{"across the hole", 0x1030, 0x1000, false},
		{"beyond all", 0x3000, 1, false},
		{"length wraps", 0x1010, math.MaxUint64, false},
		{"length wraps to the start", 0x1010, math.MaxUint64 - 0x100f, false},
		{"address at the top", math.MaxUint64, 1, false},
		{"address and length at the top", math.MaxUint64, math.MaxUint64, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := m.Slice(c.gpa, c.n)
			if c.ok {
				if err != nil || uint64(len(b)) != c.n || uint64(cap(b)) != c.n {
					t.Fatalf("got len %d cap %d, %v", len(b), cap(b), err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, ErrOutOfRange) || e.GPA != c.gpa || e.Len != c.n {
				t.Fatalf("got %d bytes, error %v", len(b), err)
			}
		})
	}
}

func TestAccessors(t *testing.T) {
	m := twoRegions(t)
	if err := errors.Join(m.PutUint16(0x1001, 0x1234), m.PutUint32(0x1003, 0x56789abc),
		m.PutUint64(0x1007, 0x1122334455667788), m.WriteAt([]byte("end"), 0x103d)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 16)
	if err := m.ReadAt(got, 0x1000); err != nil {
		t.Fatal(err)
	}
	want := []byte{0, 0x34, 0x12, 0xbc, 0x9a, 0x78, 0x56, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0}
	if !bytes.Equal(got, want) {
		t.Errorf("bytes % x, want % x", got, want)
	}
	a, err1 := m.Uint16(0x1001)
	b, err2 := m.Uint32(0x1003)
	c, err3 := m.Uint64(0x1007)
	if err := errors.Join(err1, err2, err3); err != nil || a != 0x1234 || b != 0x56789abc || c != 0x1122334455667788 {
		t.Errorf("got %#x %#x %#x, %v", a, b, c, err)
	}
	for name, err := range map[string]error{
		"PutUint16": m.PutUint16(0x103f, 1), "PutUint32": m.PutUint32(0x103d, 1),
		"PutUint64": m.PutUint64(0x1039, 1), "WriteAt": m.WriteAt([]byte("123"), 0x103e),
		"ReadAt": m.ReadAt(got, 0x1031),
	} {
		if !errors.Is(err, ErrOutOfRange) {
			t.Errorf("%s past the end: %v", name, err)
		}
	}
	if tail, _ := m.Slice(0x103d, 3); string(tail) != "end" {
		t.Errorf("a refused write changed memory: %q", tail)
	}
}

func TestAtomicUint16(t *testing.T) {
	m := twoRegions(t)
	if err := m.PutUint64(0x1000, 0x4444_3333_2222_1111); err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint16{0x1111, 0x2222, 0x3333, 0x4444} {
		if v, err := m.LoadUint16(GPA(0x1000 + 2*i)); err != nil || v != want {
			t.Errorf("field %d: %#x, %v", i, v, err)
		}
	}
	if err := m.StoreUint16(0x1002, 0xabcd); err != nil {
		t.Fatal(err)
	}
	if v, _ := m.Uint64(0x1000); v != 0x4444_3333_abcd_1111 {
		t.Errorf("the store changed its neighbours: %#x", v)
	}
	if _, err := m.LoadUint16(0x1001); !errors.Is(err, ErrMisaligned) {
		t.Errorf("odd address: %v", err)
	}
	if err := m.StoreUint16(0x1040, 1); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("past the end: %v", err)
	}
}

// TestStoreKeepsNeighbour writes both halves of a word from two goroutines: no
// store may undo the other half's.
func TestStoreKeepsNeighbour(t *testing.T) {
	m := twoRegions(t)
	var wg sync.WaitGroup
	for _, gpa := range []GPA{0x1000, 0x1002} {
		wg.Go(func() {
			for i := range 10000 {
				if err := m.StoreUint16(gpa, uint16(i)); err != nil {
					t.Error(err)
				}
				if v, _ := m.LoadUint16(gpa); v != uint16(i) {
					t.Errorf("at %#x: read %d after writing %d", gpa, v, i)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestNewLayout(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		size uint64
		want []Region
	}{
		{4096, []Region{{0, nil}}},
		{3 * gib, []Region{{0, nil}}},
		{3*gib + 4096, []Region{{0, nil}, {HoleEnd, nil}}},
	} {
		m, err := New(c.size)
		if err != nil {
			t.Fatal(err)
		}
		got := m.Regions()
		if len(got) != len(c.want) || m.Size() != c.size {
			t.Errorf("%d bytes: %d regions, size %d", c.size, len(got), m.Size())
		}
		for i, r := range got {
			if r.Start != c.want[i].Start {
				t.Errorf("%d bytes: region %d at %#x", c.size, i, uint64(r.Start))
			}
		}
		if _, err := m.Slice(HoleStart, 1); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("%d bytes: the hole is memory: %v", c.size, err)
		}
		if err := errors.Join(m.Close(), m.Close()); err != nil {
			t.Errorf("close: %v", err)
		}
		if _, err := m.Slice(0, 1); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("after Close: %v", err)
		}
	}
	for _, size := range []uint64{0, 1, 4097, MaxSize + 4096, math.MaxUint64} {
		if _, err := New(size); err == nil {
			t.Errorf("New(%d) succeeded", size)
		}
	}
}

func TestResident(t *testing.T) {
	m, err := New(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	before, err := m.Resident()
	if err != nil || before > 4<<20 {
		t.Fatalf("untouched memory: %d bytes resident, %v", before, err)
	}
	b, _ := m.Slice(16<<20, 8<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	if after, err := m.Resident(); err != nil || after < before+8<<20 {
		t.Errorf("after touching 8 MiB: %d bytes resident (before: %d), %v", after, before, err)
	}
}

func TestFromRegionsRefuses(t *testing.T) {
	b := make([]byte, 64)
	for name, regions := range map[string][]Region{
		"empty":           {{0, nil}},
		"odd length":      {{0, b[:63]}},
		"odd address":     {{4, b}},
		"odd host bytes":  {{0, b[1:57]}},
		"wraps":           {{math.MaxUint64 &^ 7, b}},
		"overlap":         {{0, b}, {32, make([]byte, 64)}},
		"not in sequence": {{0x1000, b}, {0, make([]byte, 64)}},
	} {
		if _, err := FromRegions(regions...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzSlice(f *testing.F) {
	f.Add(uint64(0x1000), uint64(64))
	f.Add(uint64(math.MaxUint64), uint64(math.MaxUint64))
	f.Add(uint64(0x103e), uint64(2))
	m := twoRegions(f)
	f.Fuzz(func(t *testing.T, gpa, n uint64) {
		b, err := m.Slice(GPA(gpa), n)
		inside := gpa >= 0x1000 && gpa < 0x1040 && n <= 0x1040-gpa || gpa >= 0x2000 && gpa < 0x2020 && n <= 0x2020-gpa
		if inside != (err == nil) || err == nil && uint64(len(b)) != n {
			t.Errorf("Slice(%#x, %d): %d bytes, %v", gpa, n, len(b), err)
		}
		if _, err := m.LoadUint16(GPA(gpa)); err == nil && gpa%2 != 0 {
			t.Errorf("LoadUint16(%#x) accepted an odd address", gpa)
		}
	})
}
