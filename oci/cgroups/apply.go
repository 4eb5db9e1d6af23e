package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// write is one value for one file of the group with a controller.
type write struct {
	controller string
	file       string
	value      string
	// optional: a kernel without the file keeps the default, which is what the
	// value means or cannot be told from it.
	optional bool
	// or is another name of the file, on other kernels.
	or string
}

// Apply puts the limits in force. It is for a new group and for update.
func (s *Set) Apply(res *specs.LinuxResources) error {
	if res == nil || s == nil {
		return nil
	}
	list, err := s.writes(res)
	if err != nil {
		return err
	}
	for i, w := range list {
		err := s.write(w)
		if err != nil && w.file == "memory.limit_in_bytes" && i+1 < len(list) {
			// The limit may not pass the one with swap at any moment: when it
			// grows, that one has to grow first.
			if s.write(list[i+1]) == nil {
				err = s.write(w)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) writes(res *specs.LinuxResources) ([]write, error) {
	if s.V2() {
		return v2Writes(res)
	}
	if len(res.Unified) > 0 {
		return nil, errors.New("linux.resources.unified is not supported on cgroup v1")
	}
	return v1Writes(res)
}

func (s *Set) write(w write) error {
	dir := s.Path(w.controller)
	if dir == "" {
		return fmt.Errorf("no %s cgroup is mounted here: %s cannot be set", w.controller, w.file)
	}
	err := writeFile(filepath.Join(dir, w.file), w.value)
	if errors.Is(err, os.ErrNotExist) && w.or != "" {
		err = writeFile(filepath.Join(dir, w.or), w.value)
	}
	if errors.Is(err, os.ErrNotExist) {
		if w.optional {
			return nil
		}
		return fmt.Errorf("this kernel's %s cgroup has no %s: %w", w.controller, w.file, err)
	}
	if err != nil {
		return fmt.Errorf("set %s to %q: %w", w.file, w.value, bare(err))
	}
	return nil
}

// writeFile writes in one call, as cgroup files want it, and makes nothing.
func writeFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func bare(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func i64(n int64) string  { return strconv.FormatInt(n, 10) }
func u64(n uint64) string { return strconv.FormatUint(n, 10) }

// v1Writes are the files of Documentation/admin-guide/cgroup-v1.
func v1Writes(res *specs.LinuxResources) ([]write, error) {
	var out []write
	add := func(controller, file, value string) {
		out = append(out, write{controller: controller, file: file, value: value})
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
			write{controller: "hugetlb", file: "hugetlb." + h.Pagesize + ".limit_in_bytes", value: u64(h.Limit)},
			write{controller: "hugetlb", file: "hugetlb." + h.Pagesize + ".rsvd.limit_in_bytes", value: u64(h.Limit), optional: true})
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

// orMax writes no limit as "max": 0 and below, as runc has it.
func orMax(n int64) string {
	if n <= 0 {
		return "max"
	}
	return i64(n)
}

func v1Memory(m *specs.LinuxMemory) []write {
	var out []write
	add := func(file string, n *int64) {
		if n != nil && *n != 0 {
			out = append(out, write{controller: "memory", file: file, value: i64(*n)})
		}
	}
	add("memory.limit_in_bytes", m.Limit)
	add("memory.memsw.limit_in_bytes", m.Swap)
	add("memory.soft_limit_in_bytes", m.Reservation)
	add("memory.kmem.tcp.limit_in_bytes", m.KernelTCP)
	if m.Swappiness != nil {
		out = append(out, write{controller: "memory", file: "memory.swappiness", value: u64(*m.Swappiness)})
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		out = append(out, write{controller: "memory", file: "memory.oom_control", value: "1"})
	}
	if m.UseHierarchy != nil {
		value := "0"
		if *m.UseHierarchy {
			value = "1"
		}
		out = append(out, write{controller: "memory", file: "memory.use_hierarchy", value: value, optional: true})
	}
	return out
}

func v1CPU(c *specs.LinuxCPU) []write {
	var out []write
	add := func(controller, file, value string) {
		out = append(out, write{controller: controller, file: file, value: value})
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

func v1BlockIO(b *specs.LinuxBlockIO) []write {
	var out []write
	add := func(file, value, or string) {
		out = append(out, write{controller: "blkio", file: file, value: value, or: or})
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

// sortedKeys returns the keys of m in order, for writes that can be foretold.
func sortedKeys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
