package cgroups

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stats is what a container uses, in the form of runc's events.
type Stats struct {
	CPU    CPUStats    `json:"cpu"`
	Memory MemoryStats `json:"memory"`
	Pids   PidsStats   `json:"pids"`
}

// CPUStats are times in nanoseconds.
type CPUStats struct {
	Usage struct {
		Total  uint64 `json:"total"`
		Kernel uint64 `json:"kernel"`
		User   uint64 `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods          uint64 `json:"periods"`
		ThrottledPeriods uint64 `json:"throttledPeriods"`
		ThrottledTime    uint64 `json:"throttledTime"`
	} `json:"throttling"`
}

// MemoryStats are in bytes.
type MemoryStats struct {
	Cache uint64 `json:"cache,omitempty"`
	Usage struct {
		Limit   uint64 `json:"limit"`
		Usage   uint64 `json:"usage"`
		Max     uint64 `json:"max,omitempty"`
		Failcnt uint64 `json:"failcnt"`
	} `json:"usage"`
	Raw map[string]uint64 `json:"raw,omitempty"`
}

// PidsStats are numbers of processes and threads.
type PidsStats struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit,omitempty"` // 0 is none
}

// Stats reads what the container uses; what cannot be read is 0.
func (s *Set) Stats() Stats {
	var out Stats
	if pids := s.Path("pids"); pids != "" {
		out.Pids.Current = number(pids, "pids.current")
		out.Pids.Limit = number(pids, "pids.max")
	}
	if s.V2() {
		s.statsV2(&out)
	} else {
		s.statsV1(&out)
	}
	return out
}

// OOMKills counts the processes killed for want of memory.
func (s *Set) OOMKills() uint64 {
	dir, file := s.Path("memory"), "memory.oom_control"
	if dir == "" {
		return 0
	}
	if s.V2() {
		file = "memory.events"
	}
	return keyed(dir, file)["oom_kill"]
}

func (s *Set) statsV1(out *Stats) {
	const userHZ = 100 // cpuacct.stat counts ticks of 10 ms
	acct, cpu, mem := s.Path("cpuacct"), s.Path("cpu"), s.Path("memory")
	if acct != "" {
		out.CPU.Usage.Total = number(acct, "cpuacct.usage")
		stat := keyed(acct, "cpuacct.stat")
		out.CPU.Usage.User, out.CPU.Usage.Kernel = stat["user"]*(1e9/userHZ), stat["system"]*(1e9/userHZ)
	}
	if cpu != "" {
		stat := keyed(cpu, "cpu.stat")
		t := &out.CPU.Throttling
		t.Periods, t.ThrottledPeriods, t.ThrottledTime = stat["nr_periods"], stat["nr_throttled"], stat["throttled_time"]
	}
	if mem != "" {
		u := &out.Memory.Usage
		u.Usage, u.Limit = number(mem, "memory.usage_in_bytes"), number(mem, "memory.limit_in_bytes")
		u.Max, u.Failcnt = number(mem, "memory.max_usage_in_bytes"), number(mem, "memory.failcnt")
		out.Memory.Raw = keyed(mem, "memory.stat")
		out.Memory.Cache = out.Memory.Raw["cache"]
	}
}

func (s *Set) statsV2(out *Stats) {
	dir := s.Dirs[0].Path
	stat := keyed(dir, "cpu.stat") // in microseconds
	out.CPU.Usage.Total, out.CPU.Usage.User, out.CPU.Usage.Kernel = stat["usage_usec"]*1000, stat["user_usec"]*1000, stat["system_usec"]*1000
	t := &out.CPU.Throttling
	t.Periods, t.ThrottledPeriods, t.ThrottledTime = stat["nr_periods"], stat["nr_throttled"], stat["throttled_usec"]*1000
	u := &out.Memory.Usage
	u.Usage, u.Limit, u.Max = number(dir, "memory.current"), number(dir, "memory.max"), number(dir, "memory.peak")
	u.Failcnt = keyed(dir, "memory.events")["max"]
	out.Memory.Raw = keyed(dir, "memory.stat")
	out.Memory.Cache = out.Memory.Raw["file"]
}

// number reads a file of one number; "max" is 0.
func number(dir, file string) uint64 {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// keyed reads a flat keyed file (cgroup-v2.rst, "Flat keyed").
func keyed(dir, file string) map[string]uint64 {
	out := map[string]uint64{}
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			if n, err := strconv.ParseUint(v, 10, 64); err == nil {
				out[k] = n
			}
		}
	}
	return out
}
