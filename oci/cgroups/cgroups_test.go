package cgroups

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

// The files and values that limits become, on both versions.
func TestWrites(t *testing.T) {
	for _, tt := range []struct {
		name   string
		res    specs.LinuxResources
		v1, v2 string
	}{
		{"memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(150)), Reservation: ptr(int64(50))}},
			"memory.limit_in_bytes=100 memory.memsw.limit_in_bytes=150 memory.soft_limit_in_bytes=50",
			"memory.max=100 memory.swap.max=50 memory.low=50"},
		{"no limit of memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1)), Swap: ptr(int64(-1))}},
			"memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1", "memory.max=max memory.swap.max=max"},
		{"swappiness", specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(0))}},
			"memory.swappiness=0", "!swappiness is not supported"},
		{"swap alone", specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(1))}}, "memory.memsw.limit_in_bytes=1", "!needs a memory limit"},
		{"CPU", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(5000)), Period: ptr(uint64(10000)), Cpus: "0-1", Mems: "0"}},
			"cpu.shares=1024 cpu.cfs_period_us=10000 cpu.cfs_quota_us=5000 cpuset.cpus=0-1 cpuset.mems=0",
			"cpu.weight=39 cpu.max=5000 10000 cpuset.cpus=0-1 cpuset.mems=0"},
		{"no quota", specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(-1))}}, "cpu.cfs_quota_us=-1", "cpu.max=max 100000"},
		{"real time", specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimeRuntime: ptr(int64(5))}}, "cpu.rt_runtime_us=5", "!not supported on cgroup v2"},
		{"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(7))}}, "pids.max=7", "pids.max=7"},
		{"no limit of pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}, "pids.max=max", "pids.max=max"},
		{"block I/O", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(10)),
			ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8}, Rate: 99}}}},
			"blkio.weight=10 blkio.throttle.read_bps_device=8:0 99", "io.weight=default 1 io.max=8:0 rbps=99"},
		{"huge pages", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4}}},
			"hugetlb.2MB.limit_in_bytes=4 hugetlb.2MB.rsvd.limit_in_bytes=4", "hugetlb.2MB.max=4 hugetlb.2MB.rsvd.max=4"},
		{"network", specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(3))}}, "net_cls.classid=3", "!not supported on cgroup v2"},
		{"unified", specs.LinuxResources{Unified: map[string]string{"memory.high": "9", "cpu.max": "max"}},
			"!not supported on cgroup v1", "cpu.max=max memory.high=9"},
		{"unified path", specs.LinuxResources{Unified: map[string]string{"../x": "9"}}, "!not supported", "!not the name of a file"},
	} {
		for version, want := range map[int]string{1: tt.v1, 2: tt.v2} {
			s := &Set{Dirs: []Dir{{Name: "memory"}, {Name: "cpu"}}}
			if version == 2 {
				s = &Set{Dirs: []Dir{{}}}
			}
			list, err := s.writes(&tt.res)
			if text, bad := strings.CutPrefix(want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("%s, v%d: error %v, want %q", tt.name, version, err, text)
				}
				continue
			}
			var got []string
			for _, w := range list {
				got = append(got, w.file+"="+w.value)
			}
			if err != nil || strings.Join(got, " ") != want {
				t.Errorf("%s, v%d: %q, %v; want %q", tt.name, version, got, err, want)
			}
		}
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 39, 262144: 10000, 1 << 60: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("%d shares: weight %d, want %d", shares, got, want)
		}
	}
}

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
