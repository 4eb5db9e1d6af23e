package bootbench

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden file")

// The program is a file that Linux executes, and points at the byte it writes.
func TestBareInit(t *testing.T) {
	data := BareInit()
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if f.Type != elf.ET_EXEC || len(f.Progs) != 1 || f.Progs[0].Filesz != uint64(len(data)) {
		t.Fatalf("got %+v with %d segments", f.FileHeader, len(f.Progs))
	}
	p := f.Progs[0]
	code := data[f.Entry-p.Vaddr:]
	if !bytes.Equal(code, bareCode) {
		t.Fatalf("the entry point is at % x", code)
	}
	lea := bytes.Index(code, []byte{0x48, 0x8d, 0x35})
	target := lea + 7 + int(binary.LittleEndian.Uint32(code[lea+3:]))
	if target != len(code)-2 || code[target] != Ready {
		t.Errorf("it writes what is at %d of %d", target, len(code))
	}
}

func TestCaseNames(t *testing.T) {
	for _, c := range Cases {
		if got, ok := FindCase(c.Name()); !ok || got != c {
			t.Errorf("%q is %v, %v", c.Name(), got, ok)
		}
	}
	for _, target := range Targets {
		for _, c := range []Case{target.Ours, target.Theirs} {
			if _, ok := FindCase(c.Name()); !ok {
				t.Errorf("target %q names no case: %v", target.Title, c)
			}
		}
	}
}

// boots are records of runs of one case, in milliseconds.
func boots(c Case, ms ...int64) []Record {
	list := []Record{{Case: c.Name(), Run: -1, Ns: map[string]int64{c.End(): 1e12}}}
	for i, v := range ms {
		list = append(list, Record{Case: c.Name(), Run: i, Ns: map[string]int64{c.End(): v * 1e6}})
	}
	return list
}

func join(lists ...[]Record) (all []Record) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

func TestReport(t *testing.T) {
	records := join(
		[]Record{{Text: "duplex v1"}, {Text: "QEMU emulator version 7.2"}},
		boots(Case{Bare, Duplex, Distribution}, 800, 802, 801, 803),
		boots(Case{Bare, QEMU, Distribution}, 1000, 1001, 1003, 1002),
		boots(Case{Bare, Duplex, Minimal}, 95),
		boots(Case{Bare, QEMU, Minimal}, 100),
		[]Record{{Case: "image/duplex/minimal", Ns: map[string]int64{
			"entered": 57e6, "kernel_up": 139e6, Workload: 148_049_000, FirstByte: 173e6}}},
		boots(Case{Image, Container, ""}, 55),
	)
	var got bytes.Buffer
	if err := Report(&got, "made-up lab", records); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/report.txt"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the report differs from %s (write it with -update):\n%s", golden, got.Bytes())
	}
}

func TestBudget(t *testing.T) {
	b, err := ParseBudget([]byte(`{"kernels": {"known": {"bare": 400000000, "image": 500000000}}, "ratio_to_qemu": 0.8}`))
	if err != nil {
		t.Fatal(err)
	}
	bare, image, qemu := Case{Bare, Duplex, Distribution}, Case{Image, Duplex, Distribution}, Case{Bare, QEMU, Distribution}
	for _, tt := range []struct {
		name, kernel string
		records      []Record
		exceeded     bool
		says         string
	}{
		{"as before", "known", join(boots(bare, 800), boots(image, 1000)), false, "+0.00% of the budget of 400.00 million"},
		{"within tolerance", "known", join(boots(bare, 815), boots(image, 1019)), false, "+1.90%"},
		{"bare above", "known", join(boots(bare, 817), boots(image, 1000)), true, "+2.12%"},
		{"image above", "known", join(boots(bare, 800), boots(image, 1021)), true, "+2.10%"},
		{"quicker", "known", join(boots(bare, 700), boots(image, 1000)), false, "make boot-budget"},
		{"another kernel", "new", join(boots(bare, 815), boots(image, 9999), boots(qemu, 1000)), false, "kernel new has no budget of its own (known have)"},
		{"another kernel, above", "new", join(boots(bare, 817), boots(image, 1), boots(qemu, 1000)), true, "0.817 of QEMU's"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var says strings.Builder
			err := b.Judge(&says, Distribution, tt.kernel, tt.records)
			if errors.Is(err, ErrExceeded) != tt.exceeded || !tt.exceeded && err != nil {
				t.Errorf("error %v", err)
			}
			if !strings.Contains(says.String(), tt.says) {
				t.Errorf("says %q, want %q", says.String(), tt.says)
			}
		})
	}
	for _, list := range [][]Record{nil, boots(bare, 1), boots(image, 1)} {
		if err := b.Judge(&strings.Builder{}, Distribution, "known", list); err == nil || errors.Is(err, ErrExceeded) {
			t.Errorf("what was not measured: %v", err)
		}
	}
}

// What was measured becomes a budget that it keeps to, also as a ratio.
func TestBudgetSet(t *testing.T) {
	records := join(boots(Case{Bare, Duplex, Distribution}, 855), boots(Case{Image, Duplex, Distribution}, 951), boots(Case{Bare, QEMU, Distribution}, 1054))
	b := &Budget{}
	if err := b.Set(Distribution, "new", records); err != nil {
		t.Fatal(err)
	}
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if b, err = ParseBudget(data); err != nil {
		t.Fatal(err)
	}
	if b.Kernels["new"] != (Instructions{427_500_000, 475_500_000}) || b.Ratio != 0.812 {
		t.Errorf("got %+v", b)
	}
	for _, name := range []string{"new", "other"} {
		if err := b.Judge(&strings.Builder{}, Distribution, name, records); err != nil {
			t.Errorf("kernel %s: %v", name, err)
		}
	}
}

// The file in the repository is one.
func TestBudgetFile(t *testing.T) {
	data, err := os.ReadFile("budget.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseBudget(data)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.Encode(); err != nil || !bytes.Equal(again, data) {
		t.Errorf("budget.json is not as Encode writes it: %v", err)
	}
	for _, bad := range []string{`{}`, `{"kernels": {"k": {"bare": 1}}, "ratio_to_qemu": 1}`, `{"ratio_to_qemu": 1, "more": 2}`} {
		if _, err := ParseBudget([]byte(bad)); err == nil {
			t.Errorf("%s is a budget", bad)
		}
	}
}
