package vmmbench

import "testing"

func TestLines(t *testing.T) {
	for _, l := range []Line{
		{Step: Begin, Name: "blk.read4k"},
		{Step: End, Name: "blk.read4k", Measure: Measure{Ops: 3, Bytes: 12288, Ns: 5}},
		{Step: Failed, Name: "net", Text: "no such device"},
		{Step: Version, Text: "Linux 6.1"},
		{Step: Done},
	} {
		for _, around := range []struct{ before, after string }{{"", ""}, {"[ 1.0] a message of the kernel", "\r\n"}} {
			got, ok := ParseLine(around.before + l.String() + around.after)
			if !ok || got != l {
				t.Errorf("%q: %+v, %v", l.String(), got, ok)
			}
		}
	}
}

func TestLineOfSeveral(t *testing.T) {
	l := Line{Step: Failed, Name: "fs", Text: "one\ntwo"}
	if got := l.String(); got != "@bench failed fs one two" {
		t.Errorf("%q", got)
	}
}

func TestNotLines(t *testing.T) {
	for _, s := range []string{
		"", "hello", "@bench", "@bench ", "@bench nonsense x", "@bench begin", "@bench failed",
		"@bench end a 1 2", "@bench end a 1 2 3 4", "@bench end a 1 2 x", "@bench end a -1 2 3",
		"@bench end a 0 2 3", "@bench end a 1 2 0", "@bench end a 1 2 9223372036854775808",
	} {
		if l, ok := ParseLine(s); ok {
			t.Errorf("%q is taken for %+v", s, l)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add("@bench end a 1 2 3")
	f.Add("x@bench failed a b")
	f.Fuzz(func(t *testing.T, s string) {
		l, ok := ParseLine(s)
		if !ok {
			return
		}
		if l.Step == End && (l.Ops <= 0 || l.Ns <= 0 || l.Bytes < 0) {
			t.Fatalf("%q: %+v", s, l)
		}
	})
}
