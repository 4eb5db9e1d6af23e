package cgroups

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// request is what the kernel asks the device filter.
type request struct {
	kind         byte
	major, minor int64
	access       string
}

// execute runs a filter as the kernel would.
func execute(t *testing.T, prog []byte, r request) bool {
	t.Helper()
	kind := uint32(typeChar)
	if r.kind == 'b' {
		kind = typeBlock
	}
	ctx := map[int16]uint64{offsetAccessType: uint64(parseAccess(r.access)<<16 | kind), offsetMajor: uint64(r.major), offsetMinor: uint64(r.minor)}
	var reg [11]uint64
	for pc := 0; pc < len(prog)/8; pc++ {
		in := prog[pc*8:]
		dst, src := in[1]&15, in[1]>>4
		off, imm := int16(binary.NativeEndian.Uint16(in[2:])), uint64(int64(int32(binary.NativeEndian.Uint32(in[4:]))))
		jump := false
		switch in[0] {
		case opLoadWord:
			reg[dst] = ctx[off]
		case opMovReg:
			reg[dst] = reg[src]
		case opMovImm:
			reg[dst] = imm
		case opAndImm:
			reg[dst] &= imm
		case opShrImm:
			reg[dst] >>= imm
		case opJneImm:
			jump = reg[dst] != imm
		case opJeqImm:
			jump = reg[dst] == imm
		case opJneReg:
			jump = reg[dst] != reg[src]
		case opExit:
			return reg[r0] == 1
		default:
			t.Fatalf("instruction %d: operation %#x", pc, in[0])
		}
		if jump {
			pc += int(off)
		}
	}
	t.Fatal("the program runs past its end")
	return false
}

func TestDeviceFilter(t *testing.T) {
	deny := specs.LinuxDeviceCgroup{Access: "rwm"}
	allow := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access}
	}
	not := func(r specs.LinuxDeviceCgroup) specs.LinuxDeviceCgroup { r.Allow = false; return r }
	for i, tt := range []struct {
		rules []specs.LinuxDeviceCgroup
		req   request
		want  bool
	}{
		{nil, request{'c', 1, 3, "rw"}, false},
		{[]specs.LinuxDeviceCgroup{{Allow: true}}, request{'b', 8, 1, "rwm"}, true},
		{[]specs.LinuxDeviceCgroup{{Allow: true}, deny}, request{'b', 8, 1, "r"}, false},
		{[]specs.LinuxDeviceCgroup{deny, allow("c", 10, 229, "rw")}, request{'c', 10, 229, "rw"}, true},
		{[]specs.LinuxDeviceCgroup{deny, allow("c", 10, 229, "rw")}, request{'c', 10, 229, "m"}, false},
		{[]specs.LinuxDeviceCgroup{deny, allow("c", 10, 229, "rw")}, request{'b', 10, 229, "r"}, false},
		{[]specs.LinuxDeviceCgroup{deny, allow("c", 10, 229, "rw")}, request{'c', 10, 228, "r"}, false},
		{[]specs.LinuxDeviceCgroup{allow("c", 10, 229, "r"), allow("c", 10, 229, "w")}, request{'c', 10, 229, "rw"}, true},
		{[]specs.LinuxDeviceCgroup{allow("c", 10, 229, "r"), deny, allow("c", 10, 229, "w")}, request{'c', 10, 229, "rw"}, false},
		{[]specs.LinuxDeviceCgroup{allow("b", 8, -1, "rwm"), not(allow("b", 8, 1, "w"))}, request{'b', 8, 1, "rw"}, false},
		{[]specs.LinuxDeviceCgroup{allow("b", 8, -1, "rwm"), not(allow("b", 8, 1, "w"))}, request{'b', 8, 1, "r"}, true},
		{[]specs.LinuxDeviceCgroup{allow("b", 8, -1, "rwm"), not(allow("b", 8, 1, "w"))}, request{'b', 8, 2, "rw"}, true},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if got := execute(t, filter(parseRules(tt.rules)), tt.req); got != tt.want {
				t.Errorf("%v, %+v: %v", tt.rules, tt.req, got)
			}
		})
	}
	if !execute(t, filter(defaultRules), request{'c', 1, 3, "rw"}) || execute(t, filter(defaultRules), request{'c', 1, 1, "r"}) {
		t.Error("the default rules do not allow /dev/null alone")
	}
}
