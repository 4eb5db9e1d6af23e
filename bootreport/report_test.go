package bootreport

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/duplex-run/duplex/compare"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm/trace"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s differs (%v; go test ./bootreport -update writes it):\n%s", path, err, got)
	}
}

const begin = 5_000 * ms // of the boot that is made up here

// traceFile is a trace that begins 45 ms after exec; see package trace for records.
func traceFile(exits ...trace.Record) []byte {
	h := `{"magic":"duplex-trace","version":1,"vcpus":1,"start_ns":%d,"reasons":{"2":"io","6":"mmio"},"devices":[` +
		`{"name":"marks","port":true,"base":213,"size":1},{"name":"serial","port":true,"base":1016,"size":8},{"name":"blk0","base":3489660928,"size":4096}]}` + "\n"
	out := fmt.Appendf(nil, h, int64(begin+45*ms))
	for _, r := range exits {
		var b [32]byte
		binary.LittleEndian.PutUint64(b[0:], r.Time)
		binary.LittleEndian.PutUint64(b[8:], r.Addr)
		binary.LittleEndian.PutUint32(b[16:], r.Host)
		b[20] = byte(r.Kind)
		if r.Write {
			b[21] = 1
		}
		out = append(out, b[:]...)
	}
	return out
}

const guestLog = `6,0,0,-;Linux version 6.1.0
6,1,200,-;kvm-clock: using sched offset of 4672633072 cycles
6,2,1000,-;ftrace: allocating 37697 entries in 148 pages
6,3,41000,-;ftrace: allocated 148 pages with 3 groups
7,4,60000,-;calling  init_kprobe_trace+0x0/0x176 @ 1
7,5,130000,-;initcall init_kprobe_trace+0x0/0x176 returned 0 after 70000 usecs
6,6,130100,-;Trying to unpack rootfs image as initramfs...
7,7,130200,-;calling  inet_init+0x0/0x296 @ 1
7,8,190200,-;initcall inet_init+0x0/0x296 returned 0 after 60000 usecs
6,9,192000,-;Freeing initrd memory: 4456K
6,10,250000,-;sched_clock: Marking stable (1, 2)->(3, -12000000)
7,11,300000,-;calling  balloon_wait_finish+0x0/0xed @ 1
7,12,300010,-;initcall balloon_wait_finish+0x0/0xed returned 0 after 1 usecs
6,13,340000,-;Run /init as init process
15,14,350000,-;duplex: step agent
15,15,354000,-;duplex: step load <virtio>.ko
7,16,360000,-;calling  virtio_init+0x0/0x1000 [virtio] @ 40
7,17,361000,-;initcall virtio_init+0x0/0x1000 [virtio] returned 0 after 990 usecs
15,18,399000,-;duplex: step learn what to run
15,19,447900,-;duplex: step start the command
15,20,700000,-;duplex: step send the log
`

// madeUp is a boot that was never made: every number in it is known.
func madeUp() (*Document, observation) {
	at := func(observed int64) map[string]int64 {
		return map[string]int64{
			"image": 20 * ms, "created": 45 * ms, "loaded": 105*ms + observed, "entered": 110*ms + observed, "kernel_up": 500*ms + 10*observed,
			"workload": 590*ms + 20*observed, "first_byte": 630*ms + 20*observed, "exited": 800 * ms, "torn_down": 810 * ms,
		}
	}
	first := at(0)
	first["first_byte"] += 300 * ms
	steps := []workload.Step{
		{Name: "find the image", Ns: 15 * ms, Process: workload.ProcessDuplex},
		{Name: "start the monitor", Ns: 30 * ms, Process: workload.ProcessDuplex},
		{Name: "created", Ns: 45 * ms, Process: workload.ProcessMonitor, Faults: workload.Faults{Minor: 200}},
		{Name: "loaded", Ns: 106 * ms, Process: workload.ProcessMonitor, Faults: workload.Faults{Minor: 700, Major: 2}},
		{Name: "the monitor's program starts", Ns: 36 * ms, Process: workload.ProcessMonitor}, // told later
		{Name: "enter the jail", Ns: 109 * ms, Process: workload.ProcessMonitor, Faults: workload.Faults{Minor: 750, Major: 2}},
		{Name: "entered", Ns: 111 * ms, Process: workload.ProcessMonitor, Faults: workload.Faults{Minor: 760, Major: 2}},
		{Name: "kernel_up", Ns: 510 * ms, Process: workload.ProcessMonitor, Faults: workload.Faults{Minor: 960, Major: 2}},
	}
	for i, at := range []int64{511, 515, 560, 609, 640} {
		steps = append(steps, workload.Step{Name: workload.StepMark, Ns: at * ms, Process: workload.ProcessMonitor, Faults: workload.Faults{Minor: int64(961 + i), Major: 2}})
	}
	steps = append(steps, workload.Step{Name: "workload", Ns: 610 * ms, Process: workload.ProcessMonitor, Faults: workload.Faults{Minor: 970, Major: 2}})
	for i := range steps {
		steps[i].Ns += begin
		if steps[i].Ns > begin+110*ms && steps[i].Process == workload.ProcessMonitor { // after the machine was made
			steps[i].KVM = workload.KVM{Exits: 100 * int64(i), Halts: int64(i), IdleNs: int64(i) * ms, MemoryFaults: 50 * int64(i), Interrupts: 2 * int64(i), Emulated: 5 * int64(i)}
		}
	}
	bytes := map[string]int64{"kernel": 33 << 20, "initrd": 4 << 20, "disk_read": 6 << 20}
	boot := func(kind string, phases map[string]int64) Boot {
		return Boot{Kind: kind, PhasesNs: phases, CPUNs: 700 * ms, Faults: workload.Faults{Minor: 1200}, Bytes: bytes,
			Memory: map[string]int64{"guest_rss": 90 << 20}, Exits: map[string]uint64{"io": 4}, Ended: "killed by signal 9"}
	}
	d := &Document{
		Host:  compare.Host{CPU: "Some CPU", CPUs: 2, Memory: 4 << 30, Kernel: "6.1.0", BootID: "boot", KVM: "opens", Cgroup: "cgroup v2"},
		Image: compare.Image{Ref: "oci:app & <more>", Digest: "sha256:00"}, Command: []string{"serve", "--port=80\x1b[2J"}, FaultNs: 1000, ExitNs: 1500,
		Boots: []Boot{boot(First, first), boot(Observed, at(ms)), boot(Again, at(0))},
	}
	d.Boots[0].Major, d.Boots[0].ReadBytes = 18, 48<<20
	exits := traceFile(
		trace.Record{Time: 100 * ms, Addr: 0x3f8, Kind: 2, Write: true, Host: 20_000},
		trace.Record{Time: 0, Kind: trace.Event, Addr: 2}, // not an exit
		trace.Record{Time: 480 * ms, Addr: 0xd0000050, Kind: 6, Write: true, Host: 9_000_000},
		trace.Record{Time: 200 * ms, Addr: 0xcf8, Kind: 2, Write: true, Host: 5_000}, // out of order, and nothing there
		trace.Record{Time: 575 * ms, Addr: 0xd0000060, Kind: 6, Host: 1_000_000},
		trace.Record{Time: 700 * ms, Addr: 0xd5, Kind: 2, Write: true, Host: 1}, // too late
	)
	return d, observation{begin: begin, steps: steps, trace: bytesReader(exits), log: []byte(guestLog), clearNs: 100_000}
}

func bytesReader(b []byte) io.Reader { return bytes.NewReader(b) }

func built(t *testing.T) *Document {
	t.Helper()
	d, o := madeUp()
	if err := build(d, o); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestText(t *testing.T) {
	var b bytes.Buffer
	if err := WriteText(&b, built(t), Style{Width: DefaultWidth}); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.txt", b.Bytes())
	for _, width := range []int{0, MinWidth, 80, 200} {
		b.Reset()
		if err := WriteText(&b, built(t), Style{Width: width}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(line) - 1; n > max(width, MinWidth) {
				t.Errorf("width %d: %d columns: %q", width, n, line)
			}
		}
		if strings.Contains(b.String(), "\x1b") {
			t.Errorf("width %d: an escape sequence without colour", width)
		}
	}
}

func TestColour(t *testing.T) {
	var plain, coloured bytes.Buffer
	if err := errors.Join(WriteText(&plain, built(t), Style{}), WriteText(&coloured, built(t), Style{Colour: true})); err != nil {
		t.Fatal(err)
	}
	s := coloured.String()
	if !strings.Contains(s, groupColours[GroupKernel]) {
		t.Error("no colours")
	}
	for _, code := range []string{bold, reset, groupColours[GroupHost], groupColours[GroupKernel], groupColours[GroupAgent], groupColours[GroupCommand]} {
		s = strings.ReplaceAll(s, code, "")
	}
	if s != plain.String() {
		t.Error("colour changes more than colours")
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", " ")
	if err := enc.Encode(built(t)); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", b.Bytes())
}

func TestSVG(t *testing.T) {
	var b bytes.Buffer
	if err := WriteSVG(&b, built(t)); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.svg", b.Bytes())
	dec := xml.NewDecoder(&b)
	for {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("not XML: %v", err)
		}
	}
}

// Perfetto gets the waterfall on the trace's clock.
func TestPerfetto(t *testing.T) {
	d, o := madeUp()
	raw, err := io.ReadAll(o.trace)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "trace")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	o.trace = bytes.NewReader(raw)
	if err := build(d, o); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := WritePerfetto(&b, d, path); err != nil {
		t.Fatal(err)
	}
	var got struct {
		TraceEvents []struct {
			Name    string
			Ph      string
			Ts, Dur float64
			TID     int
		}
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	found := map[string][2]float64{}
	for _, e := range got.TraceEvents {
		if e.Ph == "X" {
			found[e.Name] = [2]float64{e.Ts, e.Dur}
		}
	}
	for name, want := range map[string][2]float64{ // microseconds
		"duplex finds what to run": {0, 20000}, "guest kernel": {111000, 399000}, "init_kprobe_trace": {221000, 70000},
		"write blk0+0x50": {525000, 9000}, "write serial+0x0": {145000, 20},
	} {
		if found[name] != want {
			t.Errorf("%s: %v, want %v", name, found[name], want)
		}
	}
}

// What a guest can do to its log does not break the report.
func TestLogs(t *testing.T) {
	tests := map[string]struct {
		log  string
		note string
	}{
		"none":                     {"", "gave no log"},
		"no initcalls":             {"6,0,1,-;Linux version 6.1.0\n15,1,2,-;duplex: step agent\n", "logs no initcalls"},
		"no line of the agent":     {"6,0,1,-;Linux version 6.1.0\n", "logs no initcalls"},
		"overwritten":              {strings.ReplaceAll(guestLog, "6,0,0,-;Linux version 6.1.0\n", ""), "1 lines of the guest's log were overwritten"},
		"nonsense":                 {guestLog + "hello\n", "1 lines of the guest's log make no sense"},
		"a clock that runs ahead":  {strings.ReplaceAll(guestLog, "15,14,350000", "15,14,650000"), "its clock runs ahead"},
		"more steps than marks":    {guestLog + strings.Repeat("15,21,800000,-;duplex: step again\n", 100), ""},
		"the agent before it runs": {"15,0,1,-;duplex: step x\n" + guestLog, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d, o := madeUp()
			o.log = []byte(tt.log)
			if err := build(d, o); err != nil {
				t.Fatal(err)
			}
			if notes := strings.Join(d.Notes, "\n"); tt.note == "" && notes != "" || !strings.Contains(notes, tt.note) {
				t.Errorf("notes %q, want %q", notes, tt.note)
			}
			for _, s := range d.Spans {
				if s.StartNs < 0 || s.EndNs < s.StartNs || s.EndNs > d.TotalNs {
					t.Errorf("%+v is not within the boot", s)
				}
			}
			var b bytes.Buffer
			if err := errors.Join(WriteText(&b, d, Style{}), WriteSVG(&b, d)); err != nil {
				t.Error(err)
			}
		})
	}
}

// A restored machine has no kernel that boots, and nothing is said of one.
func TestWarm(t *testing.T) {
	d, o := madeUp()
	d.Warm, o.log = true, nil
	if err := build(d, o); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := WriteText(&b, d, Style{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a restored microVM", "memory and devices restored", "agent goes on", "no log of its kernel"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, not := range []string{"initcall", "CONFIG_PRINTK", "A smaller kernel"} {
		if strings.Contains(b.String(), not) {
			t.Errorf("says %q of a restored machine", not)
		}
	}
}

// A command that writes nothing: the waterfall ends with it.
func TestNoOutput(t *testing.T) {
	d, o := madeUp()
	for _, b := range d.Boots {
		delete(b.PhasesNs, "first_byte")
	}
	if err := build(d, o); err != nil {
		t.Fatal(err)
	}
	if last := d.Spans[len(d.Spans)-1]; d.End != "exited" || d.TotalNs != 800*ms || last.Name != "the command, to its end" || last.EndNs != d.TotalNs {
		t.Errorf("end %s after %d ns, last %+v", d.End, d.TotalNs, last)
	}
	d, o = madeUp()
	delete(d.boot(Observed).PhasesNs, "first_byte")
	delete(d.boot(Observed).PhasesNs, "exited")
	if err := build(d, o); err == nil || !strings.Contains(err.Error(), "no end") {
		t.Errorf("error %v for a boot without an end", err)
	}
}
