package cgroup

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// v1Writes are the files of Documentation/admin-guide/cgroup-v1.
func v1Writes(res *specs.LinuxResources) ([]Write, error) {
	var out []Write
	add := func(controller, file, value string) {
		out = append(out, Write{Controller: controller, File: file, Value: value})
	}
	if m := res.Memory; m != nil {
		out = append(out, v1Memory(m)...)
	}
	if c := res.CPU; c != nil {
		out = append(out, v1CPU(c)...)
	}
	if p := res.Pids; p != nil && p.Limit != nil {
		add("pids", "pids.max", orMax(*p.Limit))
	}
	if b := res.BlockIO; b != nil {
		out = append(out, v1BlockIO(b)...)
	}
	for _, h := range res.HugepageLimits {
		out = append(out,
			Write{Controller: "hugetlb", File: "hugetlb." + h.Pagesize + ".limit_in_bytes", Value: u64(h.Limit)},
			Write{Controller: "hugetlb", File: "hugetlb." + h.Pagesize + ".rsvd.limit_in_bytes", Value: u64(h.Limit), Optional: true})
	}
	if n := res.Network; n != nil {
		if n.ClassID != nil {
			add("net_cls", "net_cls.classid", u64(uint64(*n.ClassID)))
		}
		for _, p := range n.Priorities {
			add("net_prio", "net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority))
		}
	}
	return out, nil
}

func v1Memory(m *specs.LinuxMemory) []Write {
	var out []Write
	add := func(file string, n *int64) {
		if n != nil && *n != 0 {
			out = append(out, Write{Controller: "memory", File: file, Value: i64(*n)})
		}
	}
	add("memory.limit_in_bytes", m.Limit)
	add("memory.memsw.limit_in_bytes", m.Swap)
	add("memory.soft_limit_in_bytes", m.Reservation)
	add("memory.kmem.tcp.limit_in_bytes", m.KernelTCP)
	if m.Swappiness != nil {
		out = append(out, Write{Controller: "memory", File: "memory.swappiness", Value: u64(*m.Swappiness)})
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		out = append(out, Write{Controller: "memory", File: "memory.oom_control", Value: "1"})
	}
	if m.UseHierarchy != nil {
		value := "0"
		if *m.UseHierarchy {
			value = "1"
		}
		out = append(out, Write{Controller: "memory", File: "memory.use_hierarchy", Value: value, Optional: true})
	}
	return out
}

func v1CPU(c *specs.LinuxCPU) []Write {
	var out []Write
	add := func(controller, file, value string) {
		out = append(out, Write{Controller: controller, File: file, Value: value})
	}
	if c.Shares != nil && *c.Shares != 0 {
		add("cpu", "cpu.shares", u64(*c.Shares))
	}
	if c.Period != nil && *c.Period != 0 {
		add("cpu", "cpu.cfs_period_us", u64(*c.Period))
	}
	if c.Quota != nil && *c.Quota != 0 {
		add("cpu", "cpu.cfs_quota_us", i64(*c.Quota))
	}
	if c.Burst != nil {
		add("cpu", "cpu.cfs_burst_us", u64(*c.Burst))
	}
	if c.Idle != nil {
		add("cpu", "cpu.idle", i64(*c.Idle))
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		add("cpu", "cpu.rt_period_us", u64(*c.RealtimePeriod))
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		add("cpu", "cpu.rt_runtime_us", i64(*c.RealtimeRuntime))
	}
	if c.Cpus != "" {
		add("cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		add("cpuset", "cpuset.mems", c.Mems)
	}
	return out
}

func v1BlockIO(b *specs.LinuxBlockIO) []Write {
	var out []Write
	add := func(file, value, or string) {
		out = append(out, Write{Controller: "blkio", File: file, Value: value, Or: or})
	}
	if b.Weight != nil && *b.Weight != 0 {
		add("blkio.weight", u64(uint64(*b.Weight)), "blkio.bfq.weight")
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		add("blkio.leaf_weight", u64(uint64(*b.LeafWeight)), "")
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			add("blkio.weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight), "blkio.bfq.weight_device")
		}
		if d.LeafWeight != nil {
			add("blkio.leaf_weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.LeafWeight), "")
		}
	}
	for file, list := range map[string][]specs.LinuxThrottleDevice{
		"blkio.throttle.read_bps_device": b.ThrottleReadBpsDevice, "blkio.throttle.write_bps_device": b.ThrottleWriteBpsDevice,
		"blkio.throttle.read_iops_device": b.ThrottleReadIOPSDevice, "blkio.throttle.write_iops_device": b.ThrottleWriteIOPSDevice,
	} {
		for _, d := range list {
			add(file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate), "")
		}
	}
	return out
}
