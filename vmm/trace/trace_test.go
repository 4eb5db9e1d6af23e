package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

// file is a trace in memory.
type file struct {
	bytes.Buffer
	closed bool
	fail   error
}

func (f *file) Close() error { f.closed = true; return nil }

func (f *file) Write(p []byte) (int, error) {
	if f.fail != nil {
		return 0, f.fail
	}
	return f.Buffer.Write(p)
}

var header = Header{
	Reasons: map[Kind]string{exitIO: "io", exitMMIO: "mmio", 8: "shutdown"},
	Events:  []string{"created", "loaded", "entered"},
	Marks:   map[uint64]string{1: "kernel up"},
	Devices: []Device{{Name: "serial", Port: true, Base: 0x3f8, Size: 8}, {Name: "blk0", Base: 0xd0000000, Size: 0x1000}, {Name: "marks", Port: true, Base: 0xd5, Size: 1}},
}

// record writes rs of one vCPU, with the times and costs they have.
func record(t testing.TB, h Header, rs ...Record) *file {
	t.Helper()
	f := &file{}
	w := NewWriter(f, h)
	if err := w.Begin(func(h *Header) { h.VCPUs = 1 }); err != nil {
		t.Fatal(err)
	}
	var b [recordSize]byte
	for _, r := range rs {
		r.put(b[:])
		w.write(b[:])
	}
	if err := w.Close(); err != nil || !f.closed {
		t.Fatalf("close: %v, %v", err, f.closed)
	}
	return f
}

const ms = 1 << 20

var boot = []Record{
	{Kind: Event, Addr: 2, Time: 0},
	{Kind: exitIO, Addr: 0x3f8, Write: true, Size: 1, Count: 1, Time: 2 * ms, Host: 500},
	{Kind: exitIO, Addr: 0x3f8, Write: true, Size: 1, Count: 1, Time: 3 * ms, Host: 700},
	{Kind: exitMMIO, Addr: 0xd0000070, Write: true, Size: 4, Count: 1, Value: 15, Time: 4 * ms, Host: 9000},
	{Kind: Mark, Addr: 1, Time: 10 * ms},
	{Kind: exitMMIO, Addr: 0xd0000100, Size: 8, Count: 1, Time: 11 * ms, Host: 100},
	{Kind: exitIO, Addr: 0x64, Write: true, Size: 1, Count: 1, Time: 20 * ms, Host: 1 * ms},
	{Kind: 8, Time: 21 * ms, Host: 3},
}

func TestSummarize(t *testing.T) {
	s, err := Summarize(record(t, header, boot...))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := s.WriteText(&text, 3); err != nil {
		t.Fatal(err)
	}
	const want = `
6 exits of 1 vCPUs in 22.02ms

exits  handled in  by reason
    3  1.05ms      io
    2  9.1µs       mmio
    1  3ns         shutdown

exits  handled in  by device register
    1  1.049ms     write port 0x64
    1  9µs         write blk0+0x70
    2  1.2µs       write serial+0x0
                   and 1 more

exits  handled in      took  by phase, from each step to the next (1 ms steps)
    3  10.2µs      10.486ms  entered
    3  1.049ms     11.534ms  kernel up

      at  handled in  vCPU  the costliest
20.972ms  1.049ms     0     write port 0x64
 4.194ms  9µs         0     write blk0+0x70
 3.146ms  700ns       0     write serial+0x0
 2.097ms  500ns       0     write serial+0x0
11.534ms  100ns       0     read blk0+0x100
 22.02ms  3ns         0     shutdown
`
	if got := "\n" + text.String(); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("got %s", got)
	}
}

func TestWriterLimit(t *testing.T) {
	h := header
	h.Limit = 3 * recordSize
	s, err := Summarize(record(t, h, boot...))
	if err != nil {
		t.Fatal(err)
	}
	if s.Exits != 2 || s.Dropped != 5 {
		t.Errorf("%d exits, %d dropped", s.Exits, s.Dropped)
	}
}

// A Buffer stamps, keeps order and hands over when it is full and when flushed.
func TestBuffer(t *testing.T) {
	f := &file{}
	w := NewWriter(f, Header{})
	if err := w.Begin(func(h *Header) { h.VCPUs = 2 }); err != nil {
		t.Fatal(err)
	}
	b := w.Buffer(1)
	const n = bufferRecords + 10
	for i := range uint64(n) {
		b.Add(Record{Kind: exitIO, Addr: i, Time: b.Now()})
	}
	b.Flush()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var rec Record
	last := uint64(0)
	for i := range uint64(n) {
		if err := r.Next(&rec); err != nil {
			t.Fatal(err)
		}
		if rec.Addr != i || rec.VCPU != 1 || rec.Time < last {
			t.Fatalf("record %d: %+v, after %d", i, rec, last)
		}
		last = rec.Time
	}
	if err := r.Next(&rec); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}
}

func TestWriterError(t *testing.T) {
	f := &file{}
	w := NewWriter(f, Header{})
	if err := w.Begin(func(*Header) {}); err != nil {
		t.Fatal(err)
	}
	f.fail = errors.New("disk full")
	b := w.Buffer(0)
	b.Add(Record{})
	b.Flush()
	if err := w.Close(); !errors.Is(err, f.fail) {
		t.Errorf("close: %v", err)
	}
	var none *Writer
	none.Buffer(0).Add(Record{Time: none.Buffer(0).Now()})
	none.Buffer(0).Flush()
	if err := none.Close(); err != nil {
		t.Error(err)
	}
}

func TestPerfetto(t *testing.T) {
	var out bytes.Buffer
	if err := WritePerfetto(&out, record(t, header, boot...)); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		TraceEvents []struct {
			Name string
			Ph   string
			Ts   float64
			Dur  float64
		}
	}
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if n := len(doc.TraceEvents); n != len(boot)+1 {
		t.Fatalf("%d events", n)
	}
	if e := doc.TraceEvents[4]; e.Name != "write blk0+0x70" || e.Ph != "X" || e.Ts != 4*ms/1e3 || e.Dur != 9 {
		t.Errorf("%+v", e)
	}
}

// Spans of others come on tracks of their own, and time 0 is the earliest.
func TestPerfettoSpans(t *testing.T) {
	var out bytes.Buffer
	spans := []Span{
		{Track: "phases", Name: "exec", Start: -5 * ms, End: 2 * ms, Args: map[string]any{"clock": "host"}},
		{Track: "log", Name: "inet_init", Start: ms, End: 0}, // ends before it starts
		{Track: "phases", Name: "boot", Start: 2 * ms, End: 9 * ms},
	}
	if err := WritePerfetto(&out, record(t, header, boot...), spans...); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		TraceEvents []struct {
			Name    string
			Ph      string
			Ts, Dur float64
			TID     int
		}
	}
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	got := map[string][3]float64{}
	for _, e := range doc.TraceEvents {
		if e.Ph == "X" {
			got[e.Name] = [3]float64{e.Ts, e.Dur, float64(e.TID)}
		}
	}
	for name, want := range map[string][3]float64{
		"exec": {0, 7, firstTrack}, "boot": {7, 7, firstTrack}, "inet_init": {6, 0, firstTrack + 1}, "write blk0+0x70": {9, 0, 1},
	} {
		if at := got[name]; math.Round(at[0]*1e3/ms) != want[0] || math.Round(at[1]*1e3/ms) != want[1] || at[2] != want[2] {
			t.Errorf("%s: %v, want %v", name, got[name], want)
		}
	}
}

func TestNotATrace(t *testing.T) {
	for _, s := range []string{"", "\n", "{}\n", "text\n", `{"magic":"duplex-trace","version":2}` + "\n", strings.Repeat("x", maxHeader+10)} {
		if _, err := Summarize(strings.NewReader(s)); !errors.Is(err, ErrFormat) {
			t.Errorf("%.20q: %v", s, err)
		}
	}
}

// FuzzSummarize reads any file: it may be one that somebody was sent.
func FuzzSummarize(f *testing.F) {
	f.Add(record(f, header, boot...).Bytes())
	f.Add([]byte("{\"magic\":\"duplex-trace\",\"version\":1}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Summarize(bytes.NewReader(b))
		if err != nil {
			return
		}
		if s.Exits > uint64(len(b))/recordSize {
			t.Errorf("%d exits in %d bytes", s.Exits, len(b))
		}
		if err := WritePerfetto(io.Discard, bytes.NewReader(b)); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	w := NewWriter(&discard{}, Header{Limit: 1 << 60})
	if err := w.Begin(func(*Header) {}); err != nil {
		b.Fatal(err)
	}
	buf := w.Buffer(0)
	b.ReportAllocs()
	for b.Loop() {
		buf.Add(Record{Kind: exitIO, Addr: 0x3f8, Time: buf.Now()})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }
