package cgroup

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/duplex-run/duplex/internal/workload"
)

// cpuPeriod is the period of CPU bandwidth control, in microseconds.
const cpuPeriod = 100_000

// writesFor are the limits of r but that of processes, each for the version of
// the hierarchy that has its controller on this host; v2's where none has.
func writesFor(l Layout, r workload.Resources) ([]Write, error) {
	res := resources(r)
	old, err := Writes(res, false)
	if err != nil {
		return nil, err
	}
	onV1 := func(controller string) bool {
		h, ok := l.By[controller]
		return ok && !h.V2()
	}
	list, err := Writes(withoutV1(res, onV1), true)
	if err != nil {
		return nil, err
	}
	var out []Write
	for _, w := range list {
		if name := v1Name(w.Controller); !onV1(name) {
			out = append(out, w)
		}
	}
	for _, w := range old {
		if !onV1(w.Controller) {
			continue
		}
		// A kernel that does not count swap has no such file: no swap is what it
		// then gives by default.
		if strings.HasPrefix(w.File, "memory.memsw.") && (r.Host == nil || r.Host.MemorySwap == 0) {
			w.Optional = true
		}
		out = append(out, w)
	}
	return out, nil
}

// withoutV1 is res without what v2 refuses and v1 keeps here.
func withoutV1(res *specs.LinuxResources, onV1 func(controller string) bool) *specs.LinuxResources {
	out := *res
	if onV1(Memory) {
		out.Memory = nil
	}
	if out.CPU != nil && onV1("cpu") {
		c := *out.CPU
		c.RealtimeRuntime, c.RealtimePeriod = nil, nil
		out.CPU = &c
	}
	return &out
}

// v1Name is what a v2 controller is called in v1.
func v1Name(controller string) string {
	if controller == "io" {
		return "blkio"
	}
	return controller
}

// resources are r in the words of the OCI specification. Swap is not given on
// top of memory unless asked for: a memory limit means the same for a container
// as for a microVM, which has no swap.
func resources(r workload.Resources) *specs.LinuxResources {
	h := r.Host
	if h == nil {
		h = &workload.HostLimits{}
	}
	res := &specs.LinuxResources{}
	if r.MemoryBytes > 0 || h.MemoryReservation > 0 || h.Swappiness != nil {
		res.Memory = &specs.LinuxMemory{Reservation: &h.MemoryReservation, Swappiness: h.Swappiness}
	}
	if r.MemoryBytes > 0 {
		swap := r.MemoryBytes
		if h.MemorySwap != 0 {
			swap = h.MemorySwap
		}
		res.Memory.Limit, res.Memory.Swap, res.Memory.DisableOOMKiller = &r.MemoryBytes, &swap, &h.OOMKillDisable
	}
	if r.CPUs > 0 || h.CPUShares > 0 || h.CPUSet != "" || h.MemSet != "" || h.RTRuntime > 0 {
		res.CPU = &specs.LinuxCPU{Shares: &h.CPUShares, Cpus: h.CPUSet, Mems: h.MemSet}
	}
	if h.RTRuntime > 0 {
		res.CPU.RealtimeRuntime, res.CPU.RealtimePeriod = &h.RTRuntime, &h.RTPeriod
	}
	if r.CPUs > 0 {
		period := uint64(cpuPeriod)
		if h.CPUPeriod > 0 {
			period = h.CPUPeriod
		}
		quota := max(int64(math.Round(r.CPUs*float64(period))), 1000) // the kernel's minimum is 1 ms
		res.CPU.Period, res.CPU.Quota = &period, &quota
	}
	if h.IOWeight > 0 || len(h.IOWeights) > 0 || len(h.IO) > 0 {
		res.BlockIO = blockIO(h)
	}
	for _, p := range h.HugePages {
		res.HugepageLimits = append(res.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: p.Size, Limit: p.Bytes})
	}
	return res
}

func blockIO(h *workload.HostLimits) *specs.LinuxBlockIO {
	b := &specs.LinuxBlockIO{Weight: &h.IOWeight}
	for _, w := range h.IOWeights {
		d := specs.LinuxWeightDevice{Weight: &w.Weight}
		d.Major, d.Minor = w.Major, w.Minor
		b.WeightDevice = append(b.WeightDevice, d)
	}
	for _, l := range h.IO {
		list := map[[2]bool]*[]specs.LinuxThrottleDevice{
			{false, false}: &b.ThrottleReadBpsDevice, {true, false}: &b.ThrottleWriteBpsDevice,
			{false, true}: &b.ThrottleReadIOPSDevice, {true, true}: &b.ThrottleWriteIOPSDevice,
		}[[2]bool{l.Write, l.Ops}]
		d := specs.LinuxThrottleDevice{Rate: l.Rate}
		d.Major, d.Minor = l.Major, l.Minor
		*list = append(*list, d)
	}
	return b
}

// InheritCpuset fills a new v1 cpuset, which starts empty and takes no process
// then (cpuset(7), unless cgroup.clone_children is set).
func InheritCpuset(dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || strings.TrimSpace(string(own)) != "" {
			return err
		}
		up, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), up, 0); err != nil {
			return err
		}
	}
	return nil
}

// ParseList parses a list of CPUs or nodes, "0-3,7" (cpuset(7), "List format").
func ParseList(s string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || a > b || b > 1023 {
			return nil, fmt.Errorf("%q is not a list of CPUs", s)
		}
		for n := a; n <= b; n++ {
			out = append(out, int(n))
		}
	}
	return out, nil
}
