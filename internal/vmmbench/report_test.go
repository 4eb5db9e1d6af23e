package vmmbench

import (
	"bytes"
	"flag"
	"os"
	"reflect"
	"testing"
)

var update = flag.Bool("update", false, "write the golden file")

// samples are results with everything that a report shows: three runs of two
// benchmarks, one target met and one missed, an outlier, a failure.
func samples() []Record {
	list := []Record{
		{Monitor: Duplex, Name: RecordVersion, Text: "duplex 1"},
		{Monitor: QEMU, Name: RecordVersion, Text: "QEMU emulator version 7"},
	}
	add := func(monitor, name string, run int, m Measure, c Counters) {
		list = append(list, Record{Monitor: monitor, Run: run, Name: name, Measure: m, Counters: &c})
	}
	for i := range 3 {
		list = append(list, Record{Name: RecordVersion, Text: "Linux 6", Run: i})
		n := int64(i)
		add(QEMU, "blk.read4k", i, Measure{1000, 4096000, 200e6 + n*10e6}, Counters{Exits: 5000, User: 2000, Kicks: 1000, Kernel: 2000, Inject: 1000})
		add(Duplex, "blk.read4k", i, Measure{1000, 4096000, 100e6 + n*n*50e6}, Counters{Exits: 3000 + n, User: 2000, Kicks: 1000, Inject: 1000})
		add(Duplex, "net.send", i, Measure{16, 1 << 20, 10e6}, Counters{Exits: 160, User: 80, Kicks: 40, Inject: 40, Halts: 4})
		add(QEMU, "net.send", i, Measure{16, 1 << 20, 8e6 - n*1e6}, Counters{Exits: 80, User: 40, Kicks: 16, Kernel: 8, Inject: 20})
		list = append(list,
			Record{Monitor: Duplex, Run: i, Name: RecordMemory, Memory: &Memory{Guest: 80 << 20, Program: 6 << 20, Heap: (2 + n) << 20, Private: 3 << 20, Processes: 1}},
			Record{Monitor: QEMU, Run: i, Name: RecordMemory, Memory: &Memory{Guest: 80 << 20, Program: 60 << 20, Heap: 14 << 20, Other: 1 << 20, Private: 20 << 20, Processes: 2}},
			Record{Monitor: Duplex, Run: i, Name: RecordStart, Measure: Measure{Ops: 1, Ns: 4e6 + n*1e6}})
	}
	return append(list,
		Record{Monitor: Duplex, Name: "fs.walk", Measure: Measure{Ops: 1, Ns: 1}}, // of one monitor only: no row
		Record{Monitor: QEMU, Run: 1, Name: RecordFailed, Text: "fs: no such device"},
		Record{Monitor: Duplex, Name: RecordIdle, Memory: &Memory{Guest: 1 << 16, Program: 6 << 20, Heap: 1 << 20, Private: 1 << 20, Processes: 1}})
}

func TestReport(t *testing.T) {
	var b bytes.Buffer
	if err := Report(&b, samples()); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/report.txt"
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("the report differs from %s (write it with -update):\n%s", golden, b.Bytes())
	}
}

func TestRecordsComeBack(t *testing.T) {
	var b bytes.Buffer
	if err := WriteRecords(&b, samples()); err != nil {
		t.Fatal(err)
	}
	got, err := ReadRecords[Record](&b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, samples()) {
		t.Errorf("got %+v", got)
	}
	if _, err := ReadRecords[Record](bytes.NewReader([]byte("{\"monitor\":1}\n"))); err == nil {
		t.Error("a record with a number for a name is taken")
	}
}

func TestReportOfNothing(t *testing.T) {
	var b bytes.Buffer
	if err := Report(&b, nil); err != nil || b.Len() > 0 {
		t.Errorf("%v, %q", err, b.String())
	}
}
