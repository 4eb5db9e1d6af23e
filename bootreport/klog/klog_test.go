package klog

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

const us = time.Microsecond

func TestParse(t *testing.T) {
	tests := map[string]struct {
		in   string
		want Log
	}{
		"nothing": {"", Log{}},
		"a line":  {"6,0,12,-;Linux version 6.1\n", Log{Lines: []Line{{12 * us, "Linux version 6.1"}}}},
		"more fields, and lines of the record": {
			"6,0,7,-,caller=T1;virtio_blk virtio0: [vda]\n SUBSYSTEM=virtio\n DEVICE=+virtio:virtio0\n",
			Log{Lines: []Line{{7 * us, "virtio_blk virtio0: [vda]"}}},
		},
		"an initcall": {
			"7,0,10,-;calling  inet_init+0x0/0x296 @ 1\n7,1,99,-;initcall inet_init+0x0/0x296 returned 0 after 80 usecs\n",
			Log{Lines: []Line{{10 * us, "calling  inet_init+0x0/0x296 @ 1"}, {99 * us, "initcall inet_init+0x0/0x296 returned 0 after 80 usecs"}},
				Initcalls: []Call{{Name: "inet_init", At: 10 * us, Took: 80 * us}}},
		},
		"a module's, which failed, without its beginning": {
			"7,0,100,-;initcall nvme_init+0x0/0x1000 [nvme] returned -19 after 30 usecs\n",
			Log{Lines: []Line{{100 * us, "initcall nvme_init+0x0/0x1000 [nvme] returned -19 after 30 usecs"}},
				Initcalls: []Call{{Name: "nvme_init", Module: "nvme", At: 70 * us, Took: 30 * us, Result: -19}}},
		},
		"without names": {
			"7,0,1,-;initcall 0xffffffff82001234 returned 0 after 1 usecs\n",
			Log{Lines: []Line{{1 * us, "initcall 0xffffffff82001234 returned 0 after 1 usecs"}},
				Initcalls: []Call{{Name: "0xffffffff82001234", Took: 1 * us}}},
		},
		"a probe": {
			"7,0,50,-;probe of 00:00 returned 0 after 20 usecs\n",
			Log{Lines: []Line{{50 * us, "probe of 00:00 returned 0 after 20 usecs"}}, Probes: []Call{{Name: "00:00", At: 30 * us, Took: 20 * us}}},
		},
		"the clock behind": {
			"6,0,1,-;sched_clock: Marking stable (7732228834, 133016997)->(10744938191, -2879692360)\n",
			Log{Lines: []Line{{1 * us, "sched_clock: Marking stable (7732228834, 133016997)->(10744938191, -2879692360)"}}, Behind: 2879692360},
		},
		"lost lines":           {"6,5,1,-;a\n6,9,2,-;b\n", Log{Lines: []Line{{1 * us, "a"}, {2 * us, "b"}}, Lost: 8}},
		"time runs backward":   {"6,0,9,-;a\n6,1,3,-;b\n", Log{Lines: []Line{{9 * us, "a"}, {9 * us, "b"}}}},
		"control characters":   {"6,0,1,-;a\x1b[2Jb\xff\u202ec\n", Log{Lines: []Line{{1 * us, "a?[2Jb??c"}}}},
		"too far in time":      {"6,0,3600000001,-;a\n", Log{Bad: 1}},
		"negative time":        {"6,0,-1,-;a\n", Log{Bad: 1}},
		"a number too large":   {"6,99999999999999999999,1,-;a\n", Log{Bad: 1}},
		"no record":            {"hello\n6,1;x\n", Log{Bad: 2}},
		"an initcall of years": {"7,0,1,-;initcall a returned 0 after 99999999999999 usecs\n", Log{Lines: []Line{{1 * us, "initcall a returned 0 after 99999999999999 usecs"}}}},
		"half an initcall":     {"7,0,1,-;initcall a+0x0/0x1 [m\n7,1,1,-;initcall \n", Log{Lines: []Line{{1 * us, "initcall a+0x0/0x1 [m"}, {1 * us, "initcall "}}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Parse([]byte(tt.in)); !reflect.DeepEqual(*got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", *got, tt.want)
			}
		})
	}
}

func TestLongLogIsBounded(t *testing.T) {
	in := strings.Repeat("7,0,1,-;calling  "+strings.Repeat("x", 1000)+"\n", 10000)
	got := Parse([]byte(in))
	if n := len(got.Lines); n == 0 || n > maxLines || len(in) <= maxBytes {
		t.Errorf("%d lines of %d bytes", n, len(in))
	}
	if n := len(got.Lines[0].Text); n != maxText {
		t.Errorf("a line of %d bytes is kept, want %d", n, maxText)
	}
}

// A whole log of Debian's cloud kernel: every initcall that began has ended.
func TestDebian(t *testing.T) {
	in, err := os.ReadFile("testdata/debian.kmsg")
	if err != nil {
		t.Fatal(err)
	}
	got := Parse(in)
	calling := 0
	for _, l := range got.Lines {
		if strings.HasPrefix(l.Text, "calling  ") {
			calling++
		}
	}
	if got.Bad != 0 || got.Lost != 0 || len(got.Initcalls) != calling || calling < 100 || len(got.Probes) == 0 || got.Behind == 0 {
		t.Errorf("%d bad, %d lost, %d initcalls of %d called, %d probes, %v behind", got.Bad, got.Lost, len(got.Initcalls), calling, len(got.Probes), got.Behind)
	}
}

// Whatever the log, what comes out is well-formed.
func FuzzParse(f *testing.F) {
	debian, err := os.ReadFile("testdata/debian.kmsg")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(debian[:4096])
	f.Add([]byte("7,0,10,-;calling  a+0x0/0x1 [m] @ 1\n7,1,99,-;initcall a+0x0/0x1 [m] returned 0 after 80 usecs\n"))
	f.Add([]byte("7,7,10,-;probe of x returned 1 after 5 usecs\n x\n6,8,11,-;sched_clock: Marking stable (1, 2)->(3, -4)\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		log := Parse(in)
		last := time.Duration(0)
		for _, l := range log.Lines {
			if l.At < last || l.At > maxTime || utf8.RuneCountInString(l.Text) > maxText {
				t.Fatalf("%v after %v: %q", l.At, last, l.Text)
			}
			last = l.At
		}
		for _, c := range append(log.Initcalls, log.Probes...) {
			if c.At < 0 || c.Took < 0 || c.At > maxTime || c.Took > maxTime || c.Name == "" || len(c.Name) > maxName || len(c.Module) > maxName {
				t.Fatalf("%+v", c)
			}
		}
		if log.Lost < 0 || log.Bad < 0 || log.Behind < 0 {
			t.Fatalf("lost %d, bad %d, behind %v", log.Lost, log.Bad, log.Behind)
		}
	})
}
