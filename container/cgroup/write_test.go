package cgroup

import (
	"encoding/json"
	"os"
	"path/filepath"
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
		{"page size", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB/../../x"}}}, "!not the name of a file", "!not the name of a file"},
		{"unified path", specs.LinuxResources{Unified: map[string]string{"../x": "9"}}, "!not supported", "!not the name of a file"},
	} {
		for version, want := range map[int]string{1: tt.v1, 2: tt.v2} {
			list, err := Writes(&tt.res, version == 2)
			if text, bad := strings.CutPrefix(want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("%s, v%d: error %v, want %q", tt.name, version, err, text)
				}
				continue
			}
			var got []string
			for _, w := range list {
				got = append(got, w.File+"="+w.Value)
			}
			if err != nil || strings.Join(got, " ") != want {
				t.Errorf("%s, v%d: %q, %v; want %q", tt.name, version, got, err, want)
			}
		}
	}
}

// Whatever resources say, only files of the group itself are written.
func FuzzWrites(f *testing.F) {
	f.Add([]byte(`{"memory":{"limit":1,"swap":2},"cpu":{"quota":1,"period":2,"cpus":"0-3"},"unified":{"memory.high":"1"}}`))
	f.Add([]byte(`{"hugepageLimits":[{"pageSize":"../2MB","limit":1}],"blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var res specs.LinuxResources
		if json.Unmarshal(data, &res) != nil {
			return
		}
		for _, v2 := range []bool{false, true} {
			list, err := Writes(&res, v2)
			for _, w := range list {
				if err != nil || strings.ContainsAny(w.File, "/\x00") || w.File == "" {
					t.Errorf("file %q, %v", w.File, err)
				}
			}
		}
	})
}

func FuzzParseList(f *testing.F) {
	f.Add("0-3,7")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParseList(s)
		for _, n := range list {
			if err != nil || n < 0 || n > 1023 {
				t.Errorf("%q: %d, %v", s, n, err)
			}
		}
	})
}

// The BFQ scheduler's weights, where the kernel has no others, are v1's.
func TestOtherFile(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"io.bfq.weight", "blkio.bfq.weight", "blkio.bfq.weight_device"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	res := &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(500))}}
	for v2, want := range map[bool]string{false: "blkio.bfq.weight 500", true: "io.bfq.weight default 500"} {
		list, err := Writes(res, v2)
		if err != nil || PutAll(list, func(string) string { return dir }) != nil {
			t.Fatal(list, err)
		}
		name, value, _ := strings.Cut(want, " ")
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != value {
			t.Errorf("%s: %q, %v, want %q", name, got, err, value)
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
