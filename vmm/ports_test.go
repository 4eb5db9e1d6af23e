package vmm

import (
	"bytes"
	"testing"
)

// FuzzPorts does port accesses as the input says: two bytes of port, one of
// direction and width, one of value. Nothing a guest writes may panic, and only
// the reset and sleep ports may end the run.
func FuzzPorts(f *testing.F) {
	f.Add([]byte{0x64, 0, 0, 0xfe, 0xd5, 0, 0, 1})
	f.Add([]byte{0x00, 6, 0, 0x34, 0xf8, 3, 0, 'x', 0xfd, 3, 1, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var marks int
		v := blank(Config{OnMark: func(byte, int64) { marks++ }})
		if err := v.attachPorts(func() {}); err != nil {
			t.Fatal(err)
		}
		reset, sleeps := false, false
		for ; len(ops) >= 4; ops = ops[4:] {
			port, width := uint64(ops[0])|uint64(ops[1])<<8, 1<<(ops[2]>>1&3)
			p := bytes.Repeat(ops[3:4], width)
			if ops[2]&1 == 1 {
				v.ports.Read(port, p)
				continue
			}
			v.ports.Write(port, p)
			reset = reset || port == portI8042Command && width == 1 && p[0] == i8042Reset
			sleeps = sleeps || port == portSleepControl && width == 1
		}
		if v.ended != nil && !reset && !sleeps {
			t.Errorf("the run was ended: %v", *v.ended)
		}
		if reset && v.ended == nil {
			t.Error("a reset did not end the run")
		}
	})
}
