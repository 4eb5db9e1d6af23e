package compare

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/duplex-run/duplex/compare/isolation"
	"github.com/duplex-run/duplex/internal/workload"
)

var update = flag.Bool("update", false, "write the golden files")

// sampleDocument is a comparison with one failed sample and one outlier.
func sampleDocument(sides ...Column) *Document {
	if len(sides) == 0 {
		sides = []Column{VM, Container}
	}
	doc := &Document{
		Schema: Schema,
		Host: Host{
			CPU: "Example CPU @ 3.00GHz", CPUs: 2, Memory: 4 << 30, Kernel: "6.1.0-example", BootID: "host-boot",
			KVM: "boots a stock kernel", Cgroup: "v2",
			Lab: &Lab{Why: "/dev/kvm is paravirtual only: the probe guest took no breakpoint", Deterministic: true},
		},
		Image: Image{Ref: "builtin", Digest: "sha256:0123"},
		Settings: Settings{
			Sides: sides, N: 6, Warmup: 1, Seed: 42,
			Flags: []string{"--memory=256m"}, Command: []string{"echo", "hello"}, Order: plan(6, len(sides), 42),
		},
	}
	for i, side := range doc.Settings.Order {
		doc.Runs = append(doc.Runs, madeUp(doc.Settings.Sides[side], i))
	}
	doc.Runs[3].Exit = SampleExit{Status: 125, Failed: "create the cgroup: permission denied"}
	doc.Runs[5].PhasesNs["torn_down"] += 9e9
	doc.Summary.Isolation = sampleStudy(sides)
	summarise(doc)
	return doc
}

func madeUp(side Column, i int) Sample {
	s := Sample{Isolation: side, Order: i, PhasesNs: map[string]int64{}, Exit: SampleExit{StdoutBytes: 6, StdoutSHA256: "5891b5b5"}}
	step := int64(1e6 + 1000*((i*7)%5))
	s.Memory = map[string]int64{"cgroup_peak": 3 << 20}
	if side != Container {
		step *= 40
		s.Memory = map[string]int64{"vmm_private": 12 << 20, "guest_rss": 91 << 20}
		s.Exits = map[string]uint64{"io": 4321, "mmio": uint64(200 + i), "hlt": 17}
	}
	if side == WarmVM {
		step /= 50
		s.Memory["guest_rss"] = 9 << 20
		s.Exits["io"] = 21
	}
	at := int64(2e6 + 1e5*((i*3)%7))
	for p := workload.PhaseImage; p < workload.NumPhases; p++ {
		if p == workload.PhaseKernelUp && side == Container {
			continue
		}
		s.PhasesNs[p.String()] = at
		at += step
	}
	s.CPUNs = 5e6 + step*3
	return s
}

func sampleStudy(sides []Column) *Study {
	host := isolation.HostFacts{Kernel: "6.1.0-example", BootID: "host-boot", Network: isolation.Network{Namespace: "net:[1]"}, Values: isolation.Values{BTime: 5, MemTotal: 9, CPUModel: "Example"}}
	st := &Study{Host: host}
	for _, name := range sides {
		o := &isolation.Observation{
			Schema: isolation.Schema, Kernel: "6.1.0-example", BootID: "host-boot", Processes: 1, Seccomp: 2, NoNewPrivs: true,
			Caps: isolation.Caps{Effective: "00000000a80425fb", Bounding: "00000000a80425fb"}, UIDMap: []string{"0 0 4294967295"},
			Writable: []isolation.Walk{{Root: "/proc", Files: 900, Writable: 3}, {Root: "/sys", Files: 4000}},
			Devices:  []isolation.Device{{Path: "/dev/null", Node: "c 1:3"}}, Values: host.Values,
			Network:  isolation.Network{Namespace: "net:[2]", Interfaces: []string{"lo"}},
			Attempts: []isolation.Attempt{{Name: "mount", Errno: "EPERM"}, {Name: "raw socket", Allowed: true}},
		}
		if name != Container {
			o.Kernel, o.BootID, o.Processes, o.Seccomp, o.NoNewPrivs = "6.1.0-49-cloud-amd64", "guest-boot", 57, 0, false
			o.Caps = isolation.Caps{Effective: "000001ffffffffff", Bounding: "000001ffffffffff"}
			o.Attempts[0] = isolation.Attempt{Name: "mount", Allowed: true}
		}
		if name == WarmVM {
			o.Processes++
		}
		st.Sides = append(st.Sides, StudySide{Isolation: name, Observation: o, Findings: isolation.Classify(o, host)})
	}
	return st
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test ./compare -update writes it):\n%s", path, got)
	}
}

// warmDocument is a comparison of all three columns.
func warmDocument() *Document {
	doc := sampleDocument(Container, VM, WarmVM)
	doc.Summary.Snapshot = &Snapshot{CreateNs: 12.3e9, Bytes: 71 << 20}
	return doc
}

func TestGoldenReport(t *testing.T) {
	for name, doc := range map[string]*Document{"report.txt": sampleDocument(), "warm.txt": warmDocument()} {
		var b bytes.Buffer
		if err := Report(&b, doc, false); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
		if !strings.HasPrefix(b.String(), "In the lab") {
			t.Errorf("%s: the first line does not say that it ran in the lab", name)
		}
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > Columns {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
		}
	}
}

func TestGoldenDocument(t *testing.T) {
	for name, doc := range map[string]*Document{"document.json": sampleDocument(), "warm.json": warmDocument()} {
		var b bytes.Buffer
		if err := WriteJSON(&b, doc); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
	}
}

func TestColourChangesNothingButColour(t *testing.T) {
	var plain, colour bytes.Buffer
	for w, c := range map[*bytes.Buffer]bool{&plain: false, &colour: true} {
		if err := Report(w, sampleDocument(), c); err != nil {
			t.Fatal(err)
		}
	}
	stripped := strings.NewReplacer(bold, "", green, "", reset, "").Replace(colour.String())
	if stripped != plain.String() || !strings.Contains(colour.String(), green) {
		t.Error("colour moved the text, or marked nothing")
	}
	if strings.Contains(plain.String(), "\x1b") {
		t.Error("escape sequences without colour")
	}
}

// An A/A comparison of made-up equal sides has no winner anywhere.
func TestNoWinnerWhenSidesAreEqual(t *testing.T) {
	doc := sampleDocument()
	doc.Settings.Sides = []Column{Container, Container}
	doc.Summary = Summary{}
	doc.Runs = nil
	for i := range doc.Settings.Order {
		doc.Runs = append(doc.Runs, madeUp(Container, i))
	}
	summarise(doc)
	for _, m := range doc.Summary.Metrics {
		if m.Smaller != -1 || m.Difference == nil {
			t.Errorf("%s %s: smaller %d, difference %v", m.Kind, m.Name, m.Smaller, m.Difference)
		}
	}
	var b bytes.Buffer
	if err := Report(&b, doc, true); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), green) || strings.Contains(b.String(), "is less") || !strings.Contains(b.String(), "container A") {
		t.Errorf("a winner among equals:\n%s", b.String())
	}
}

func TestFormat(t *testing.T) {
	for got, want := range map[string]string{
		quantityText(0, "ns"):                 "0 ns",
		quantityText(999, "ns"):               "999 ns",
		quantityText(1234567, "ns"):           "1.23 ms",
		quantityText(99960000, "ns"):          "100 ms",
		quantityText(12.5e9, "ns"):            "12.5 s",
		quantityText(5<<20, "bytes"):          "5.00 MiB",
		quantityText(1200, "count"):           "1200",
		signedText(-3e6, "ns"):                "-3.00 ms",
		signedText(4.2e3, "ns"):               "+4.20 us",
		intervalText(-12.34e6, 3.1e6, "ns"):   "-12.3..+3.1 ms",
		intervalText(123e6, 456e6, "ns"):      "+123..+456 ms",
		pText(0.0002):                         "<.001",
		pText(0.0314):                         ".031",
		pText(1):                              "1",
		clip("abcdef", 4):                     "ab..",
		oneLine("a\nb\x1b"):                   "a b?",
		rangeText(1.2e6, 120e6, "ns"):         "1..120 ms",
		sideNames([]Column{"x", "y", "x"})[2]: "x B",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestTextKeepsToTheWidth(t *testing.T) {
	r := &reporter{}
	words := "a " + strings.Repeat("x", 2*Columns+3) + " b " + strings.Repeat("word ", 40)
	r.text(words)
	for line := range strings.Lines(r.b.String()) {
		if n := len(strings.TrimSuffix(line, "\n")); n > Columns || n == 0 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	joined := strings.NewReplacer(" ", "", "\n", "")
	if joined.Replace(r.b.String()) != joined.Replace(words) {
		t.Errorf("text was lost:\n%s", r.b.String())
	}
}
