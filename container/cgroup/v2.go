package cgroup

import (
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// v2Writes are the files of Documentation/admin-guide/cgroup-v2.rst; numbers
// that v1 counts otherwise are converted as the specification's other runtimes
// do it.
func v2Writes(res *specs.LinuxResources) ([]Write, error) {
	var out []Write
	if m := res.Memory; m != nil {
		list, err := v2Memory(m)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	if c := res.CPU; c != nil {
		list, err := v2CPU(c)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	if p := res.Pids; p != nil && p.Limit != nil {
		out = append(out, Write{Controller: "pids", File: "pids.max", Value: orMax(*p.Limit)})
	}
	if b := res.BlockIO; b != nil {
		list, err := v2BlockIO(b)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	for _, h := range res.HugepageLimits {
		out = append(out,
			Write{Controller: "hugetlb", File: "hugetlb." + h.Pagesize + ".max", Value: u64(h.Limit)},
			Write{Controller: "hugetlb", File: "hugetlb." + h.Pagesize + ".rsvd.max", Value: u64(h.Limit), Optional: true})
	}
	if n := res.Network; n != nil && (n.ClassID != nil || len(n.Priorities) > 0) {
		return nil, errors.New("linux.resources.network is not supported on cgroup v2, which has no such controller")
	}
	for _, file := range sortedKeys(res.Unified) {
		out = append(out, Write{Controller: "unified", File: file, Value: res.Unified[file]})
	}
	return out, nil
}

func v2Memory(m *specs.LinuxMemory) ([]Write, error) {
	var out []Write
	add := func(file, value string) { out = append(out, Write{Controller: "memory", File: file, Value: value}) }
	switch {
	case m.Swappiness != nil:
		return nil, errors.New("linux.resources.memory.swappiness is not supported on cgroup v2")
	case m.KernelTCP != nil:
		return nil, errors.New("linux.resources.memory.kernelTCP is not supported on cgroup v2")
	case m.DisableOOMKiller != nil && *m.DisableOOMKiller:
		return nil, errors.New("linux.resources.memory.disableOOMKiller is not supported on cgroup v2")
	}
	if m.Limit != nil && *m.Limit != 0 {
		add("memory.max", orMax(*m.Limit))
	}
	if m.Swap != nil && *m.Swap != 0 {
		if *m.Swap > 0 {
			// v1 counts memory and swap together.
			if m.Limit == nil || *m.Limit <= 0 {
				return nil, errors.New("linux.resources.memory.swap needs a memory limit")
			}
			if *m.Swap < *m.Limit {
				return nil, errors.New("linux.resources.memory.swap: memory and swap together are less than memory")
			}
			out = append(out, Write{Controller: "memory", File: "memory.swap.max", Value: i64(*m.Swap - *m.Limit), Optional: *m.Swap == *m.Limit})
		} else {
			out = append(out, Write{Controller: "memory", File: "memory.swap.max", Value: "max", Optional: true})
		}
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		value := orMax(*m.Reservation)
		add("memory.low", value)
	}
	return out, nil
}

func v2CPU(c *specs.LinuxCPU) ([]Write, error) {
	var out []Write
	add := func(controller, file, value string) {
		out = append(out, Write{Controller: controller, File: file, Value: value})
	}
	if c.RealtimePeriod != nil || c.RealtimeRuntime != nil {
		return nil, errors.New("linux.resources.cpu.realtimeRuntime and realtimePeriod are not supported on cgroup v2")
	}
	if c.Idle != nil {
		add("cpu", "cpu.idle", i64(*c.Idle))
	}
	if c.Shares != nil && *c.Shares != 0 {
		add("cpu", "cpu.weight", u64(Weight(*c.Shares)))
	}
	if c.Quota != nil && *c.Quota != 0 || c.Period != nil && *c.Period != 0 {
		quota, period := "max", uint64(100_000)
		if c.Quota != nil && *c.Quota > 0 {
			quota = i64(*c.Quota)
		}
		if c.Period != nil && *c.Period != 0 {
			period = *c.Period
		}
		add("cpu", "cpu.max", quota+" "+u64(period))
	}
	if c.Burst != nil {
		add("cpu", "cpu.max.burst", u64(*c.Burst))
	}
	if c.Cpus != "" {
		add("cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		add("cpuset", "cpuset.mems", c.Mems)
	}
	return out, nil
}

// Weight converts v1's cpu.shares, 2 to 262144, to v2's cpu.weight, 1 to 10000,
// linearly, as runc and crun have done it since cgroup v2 came.
func Weight(shares uint64) uint64 {
	shares = min(max(shares, 2), 262144)
	return 1 + (shares-2)*9999/262142
}

// ioWeight converts blkio.weight, 10 to 1000, to io.weight, 1 to 10000.
func ioWeight(w uint16) uint64 {
	n := min(max(uint64(w), 10), 1000)
	return 1 + (n-10)*9999/990
}

func v2BlockIO(b *specs.LinuxBlockIO) ([]Write, error) {
	var out []Write
	add := func(file, value, or string) {
		out = append(out, Write{Controller: "io", File: file, Value: value, Or: or})
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		return nil, errors.New("linux.resources.blockIO.leafWeight is not supported on cgroup v2")
	}
	if b.Weight != nil && *b.Weight != 0 {
		out = append(out, ioWeightWrite("default ", *b.Weight))
	}
	for _, d := range b.WeightDevice {
		if d.LeafWeight != nil {
			return nil, errors.New("linux.resources.blockIO.weightDevice.leafWeight is not supported on cgroup v2")
		}
		if d.Weight != nil {
			out = append(out, ioWeightWrite(fmt.Sprintf("%d:%d ", d.Major, d.Minor), *d.Weight))
		}
	}
	for _, t := range []struct {
		key  string
		list []specs.LinuxThrottleDevice
	}{
		{"rbps", b.ThrottleReadBpsDevice}, {"wbps", b.ThrottleWriteBpsDevice},
		{"riops", b.ThrottleReadIOPSDevice}, {"wiops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.list {
			value := u64(d.Rate)
			if d.Rate == 0 {
				value = "max"
			}
			add("io.max", fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, t.key, value), "")
		}
	}
	return out, nil
}

// ioWeightWrite sets a weight, of which the BFQ scheduler has its own file, with
// v1's range.
func ioWeightWrite(of string, weight uint16) Write {
	return Write{Controller: "io", File: "io.weight", Value: of + u64(ioWeight(weight)), Or: "io.bfq.weight", OrValue: of + u64(uint64(weight))}
}
