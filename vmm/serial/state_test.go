package serial

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

// A port goes on as another: its registers, what it received, and its interrupt.
func TestState(t *testing.T) {
	old := New(nil, nil)
	old.Write(regIIR, []byte{fcrEnable})
	old.Write(regIER, []byte{ierReceive})
	old.Write(regMCR, []byte{mcrOut2})
	old.Write(regScratch, []byte{0x5a})
	if _, err := old.Input([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	edges := 0
	s := New(&out, func() { edges++ })
	saved := old.State()
	if err := s.SetState(saved); err != nil {
		t.Fatal(err)
	}
	if edges != 1 || !reflect.DeepEqual(s.State(), saved) {
		t.Errorf("%d edges, %+v, want %+v", edges, s.State(), saved)
	}
	var b [1]byte
	for _, want := range []byte("hi") {
		if s.Read(regData, b[:]); b[0] != want {
			t.Errorf("received %q, want %q", b[0], want)
		}
	}
	s.Write(regData, []byte("x"))
	if out.String() != "x" {
		t.Errorf("sent %q", &out)
	}
	for name, bad := range map[string]State{
		"IER": {IER: 0x80}, "MCR": {MCR: 0xff}, "received": {Received: make([]byte, fifoSize+1)},
	} {
		if err := New(nil, nil).SetState(bad); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
