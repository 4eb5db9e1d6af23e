package runcli

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/cgroup"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/workload"
)

// limitFlags are docker's limits beyond those of Options. Most are a matter of
// the host's control groups, which a microVM has no use for: its memory, its
// processors and its disks are the machine's own.
type limitFlags struct {
	swap, reservation, shm string
	shares, quota, period  int64
	cpus, mems             string
	ioWeight               int64
	ioWeights              []string
	readBps, writeBps      []string
	readOps, writeOps      []string
	hugePages, ulimits     []string
	oomScore               int
	swappiness             int64
	noOOMKill              bool
	rtRuntime, rtPeriod    int64

	// What they came to, and the CPUs that a quota is.
	host     *workload.HostLimits
	rlimits  []workload.Rlimit
	shmSize  int64
	cpuQuota float64
}

func (l *limitFlags) Register(fs *pflag.FlagSet) {
	fs.StringVar(&l.swap, "memory-swap", "", "`SIZE` of memory and swap together, -1 for all there is; by default no swap on top of --memory")
	fs.StringVar(&l.reservation, "memory-reservation", "", "`SIZE` of memory that the container keeps when the host runs short")
	fs.Int64Var(&l.swappiness, "memory-swappiness", -1, "how readily memory is swapped: `N` of 0 to 100 (cgroup v1)")
	fs.BoolVar(&l.noOOMKill, "oom-kill-disable", false, "out of --memory, wait for some instead of being killed (cgroup v1)")
	fs.StringVar(&l.shm, "shm-size", "", "`SIZE` of /dev/shm")
	fs.Int64VarP(&l.shares, "cpu-shares", "c", 0, "share of busy processors: `N` against 1024")
	fs.Int64Var(&l.quota, "cpu-quota", 0, "`MICROSECONDS` of processor time in a period")
	fs.Int64Var(&l.period, "cpu-period", 0, "that period, in `MICROSECONDS` (default 100000)")
	fs.Int64Var(&l.rtRuntime, "cpu-rt-runtime", 0, "`MICROSECONDS` of real-time processes in a period (cgroup v1, a kernel with RT_GROUP_SCHED)")
	fs.Int64Var(&l.rtPeriod, "cpu-rt-period", 0, "that period, in `MICROSECONDS` (default 1000000)")
	fs.StringVar(&l.cpus, "cpuset-cpus", "", "run on the processors in `LIST` only, as 0-3,7")
	fs.StringVar(&l.mems, "cpuset-mems", "", "memory of the NUMA nodes in `LIST` only")
	fs.Int64Var(&l.ioWeight, "blkio-weight", 0, "share of busy disks: `N` of 10 to 1000")
	cmdline.ListVar(fs, &l.ioWeights, "blkio-weight-device", "", "share of one busy disk: `DEVICE:N`, N of 10 to 1000")
	cmdline.ListVar(fs, &l.readBps, "device-read-bps", "", "`DEVICE:SIZE` read a second at most")
	cmdline.ListVar(fs, &l.writeBps, "device-write-bps", "", "`DEVICE:SIZE` written a second at most")
	cmdline.ListVar(fs, &l.readOps, "device-read-iops", "", "`DEVICE:N` reads a second at most")
	cmdline.ListVar(fs, &l.writeOps, "device-write-iops", "", "`DEVICE:N` writes a second at most")
	cmdline.ListVar(fs, &l.hugePages, "hugetlb-limit", "", "`PAGESIZE:SIZE` of huge pages at most, as 2MB:64m")
	cmdline.ListVar(fs, &l.ulimits, "ulimit", "", "resource limit of the command: `NAME=SOFT[:HARD]`, as nofile=1024")
	fs.IntVar(&l.oomScore, "oom-score-adj", 0, "who is killed first when the host runs out of memory: `N` of -1000 to 1000")
}

// containerOnly are the flags that a microVM refuses, with the reason.
var containerOnly = map[string]string{
	"memory-swap":         "a microVM has no swap, and the host does not swap its memory on its account",
	"memory-reservation":  "a microVM's memory is its own: give its size by --memory",
	"cpu-shares":          "a microVM's share is its number of --cpus",
	"cpuset-cpus":         "a microVM's vCPUs are threads of the host: start duplex under taskset(1)",
	"cpuset-mems":         "a microVM's memory is allocated by duplex: start it under numactl(8)",
	"blkio-weight":        "a microVM's disks are its own",
	"blkio-weight-device": "a microVM does not see the host's devices",
	"device-read-bps":     "a microVM does not see the host's devices",
	"device-write-bps":    "a microVM does not see the host's devices",
	"device-read-iops":    "a microVM does not see the host's devices",
	"device-write-iops":   "a microVM does not see the host's devices",
	"hugetlb-limit":       "a microVM's huge pages are its own memory",
	"memory-swappiness":   "a microVM has no swap, and the host does not swap its memory on its account",
	"oom-kill-disable":    "the kernel of a microVM decides what it does without memory",
	"cpu-rt-runtime":      "a microVM's vCPUs are ordinary threads of the host; its kernel has real time of its own",
	"cpu-rt-period":       "a microVM's vCPUs are ordinary threads of the host; its kernel has real time of its own",
	"oom-score-adj":       "inside a microVM there is nobody else to be killed",
}

// parse checks the flags and what they say together with o's.
func (l *limitFlags) parse(fs *pflag.FlagSet, iso workload.Isolation, o *Options) error {
	if iso == workload.VM {
		for _, name := range sortedNames(containerOnly) {
			if fs.Changed(name) {
				return fmt.Errorf("--%s is for containers: %s", name, containerOnly[name])
			}
		}
	}
	h := &workload.HostLimits{CPUSet: l.cpus, MemSet: l.mems}
	for _, parse := range []func(*workload.HostLimits, *pflag.FlagSet, *Options) error{l.parseMemory, l.parseCPU, l.parseOld, l.parseIO, l.parseRest} {
		if err := parse(h, fs, o); err != nil {
			return err
		}
	}
	if iso == workload.Container {
		l.host = h
	}
	return nil
}

func sortedNames(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// apply puts the limits into the workload.
func (l *limitFlags) apply(s *workload.Spec) {
	s.Resources.Host, s.Rlimits, s.ShmBytes = l.host, l.rlimits, l.shmSize
	if l.cpuQuota > 0 {
		s.Resources.CPUs = l.cpuQuota
	}
}

// sizeFlag parses the size of a flag; "" is 0.
func sizeFlag(name, value string, least int64) (int64, error) {
	if value == "" {
		return 0, nil
	}
	n, err := units.RAMInBytes(value)
	if err != nil {
		return 0, fmt.Errorf("--%s=%s: not a size", name, value)
	}
	if n < least {
		return 0, fmt.Errorf("--%s=%s: less than the minimum of %s", name, value, units.BytesSize(float64(least)))
	}
	return n, nil
}

func (l *limitFlags) parseMemory(h *workload.HostLimits, _ *pflag.FlagSet, o *Options) (err error) {
	if h.MemoryReservation, err = sizeFlag("memory-reservation", l.reservation, minMemory); err != nil {
		return err
	}
	if l.shmSize, err = sizeFlag("shm-size", l.shm, int64(os.Getpagesize())); err != nil {
		return err
	}
	memory, err := sizeFlag("memory", o.Memory, minMemory)
	switch {
	case err != nil:
		return err
	case memory > 0 && h.MemoryReservation > memory:
		return fmt.Errorf("--memory-reservation=%s: more than --memory=%s", l.reservation, o.Memory)
	case l.swap == "":
		return nil
	case memory == 0:
		return fmt.Errorf("--memory-swap needs --memory: it is both together")
	case l.swap == "-1":
		h.MemorySwap = -1
		return nil
	}
	if h.MemorySwap, err = sizeFlag("memory-swap", l.swap, 1); err == nil && h.MemorySwap < memory {
		return fmt.Errorf("--memory-swap=%s: less than --memory=%s: it is memory and swap together", l.swap, o.Memory)
	}
	return err
}

func (l *limitFlags) parseCPU(h *workload.HostLimits, fs *pflag.FlagSet, o *Options) error {
	period := int64(100_000)
	if fs.Changed("cpu-period") {
		period = l.period
	}
	switch {
	case fs.Changed("cpu-shares") && (l.shares < 2 || l.shares > 262144):
		return fmt.Errorf("--cpu-shares=%d: out of range 2 to 262144", l.shares)
	case (fs.Changed("cpu-quota") || fs.Changed("cpu-period")) && o.CPUs > 0:
		return fmt.Errorf("--cpus and --cpu-quota exclude each other: both are the same limit")
	case fs.Changed("cpu-period") && !fs.Changed("cpu-quota"):
		return fmt.Errorf("--cpu-period needs --cpu-quota: it is what the quota is counted in")
	case period < 1000 || period > 1_000_000:
		return fmt.Errorf("--cpu-period=%d: out of range 1000 to 1000000", period)
	case fs.Changed("cpu-quota") && (l.quota < 1000 || l.quota > 1024*period):
		return fmt.Errorf("--cpu-quota=%d: out of range 1000 to %d", l.quota, 1024*period)
	}
	for name, list := range map[string]string{"cpuset-cpus": l.cpus, "cpuset-mems": l.mems} {
		if _, err := cgroup.ParseList(list); err != nil || fs.Changed(name) && list == "" {
			return fmt.Errorf("--%s=%s: not a list as 0-3,7", name, list)
		}
	}
	h.CPUShares = uint64(l.shares)
	if l.quota > 0 {
		h.CPUPeriod, l.cpuQuota = uint64(period), float64(l.quota)/float64(period)
	}
	return nil
}

// oldOnly are the flags that only cgroup v1 can keep, with the controller.
var oldOnly = map[string]string{"memory-swappiness": "memory", "oom-kill-disable": "memory", "cpu-rt-runtime": "cpu", "cpu-rt-period": "cpu"}

// hasV2 reports whether a controller of this host is cgroup v2's.
var hasV2 = func(controller string) bool {
	layout, err := cgroup.Find()
	h, ok := layout.By[controller]
	return err == nil && ok && h.V2()
}

func (l *limitFlags) parseOld(h *workload.HostLimits, fs *pflag.FlagSet, o *Options) error {
	period := int64(1_000_000)
	if fs.Changed("cpu-rt-period") {
		period = l.rtPeriod
	}
	switch {
	case fs.Changed("memory-swappiness") && (l.swappiness < -1 || l.swappiness > 100):
		return fmt.Errorf("--memory-swappiness=%d: out of range 0 to 100", l.swappiness)
	case l.noOOMKill && o.Memory == "":
		return fmt.Errorf("--oom-kill-disable needs --memory: without a limit it is the host that runs out")
	case fs.Changed("cpu-rt-period") && !fs.Changed("cpu-rt-runtime"):
		return fmt.Errorf("--cpu-rt-period needs --cpu-rt-runtime: it is what the time is counted in")
	case period < 1 || period > 1<<32:
		return fmt.Errorf("--cpu-rt-period=%d: out of range 1 to %d", period, int64(1)<<32)
	case fs.Changed("cpu-rt-runtime") && (l.rtRuntime < 1 || l.rtRuntime > period):
		return fmt.Errorf("--cpu-rt-runtime=%d: out of range 1 to %d, the period", l.rtRuntime, period)
	}
	if l.swappiness >= 0 {
		n := uint64(l.swappiness)
		h.Swappiness = &n
	}
	if h.OOMKillDisable = l.noOOMKill; l.rtRuntime > 0 {
		h.RTRuntime, h.RTPeriod = l.rtRuntime, uint64(period)
	}
	for _, name := range sortedNames(oldOnly) {
		off := fs.Lookup(name).Value.String() == fs.Lookup(name).DefValue // says what is so anyway
		if fs.Changed(name) && !off && hasV2(oldOnly[name]) {
			return fmt.Errorf("--%s is for cgroup v1: this host has the %s controller by cgroup v2, which knows no such limit", name, oldOnly[name])
		}
	}
	return nil
}

func (l *limitFlags) parseIO(h *workload.HostLimits, fs *pflag.FlagSet, _ *Options) error {
	if fs.Changed("blkio-weight") && (l.ioWeight < 10 || l.ioWeight > 1000) {
		return fmt.Errorf("--blkio-weight=%d: out of range 10 to 1000", l.ioWeight)
	}
	h.IOWeight = uint16(l.ioWeight)
	for _, v := range l.ioWeights {
		d, err := ioLimit(v, true)
		if err == nil && (d.Rate < 10 || d.Rate > 1000) {
			err = fmt.Errorf("the weight is out of range 10 to 1000")
		}
		if err != nil {
			return fmt.Errorf("--blkio-weight-device=%s: %w", v, err)
		}
		h.IOWeights = append(h.IOWeights, workload.IOWeight{Major: d.Major, Minor: d.Minor, Weight: uint16(d.Rate)})
	}
	for _, t := range []struct {
		flag       string
		list       []string
		write, ops bool
	}{
		{"device-read-bps", l.readBps, false, false}, {"device-write-bps", l.writeBps, true, false},
		{"device-read-iops", l.readOps, false, true}, {"device-write-iops", l.writeOps, true, true},
	} {
		for _, v := range t.list {
			d, err := ioLimit(v, t.ops)
			if err != nil {
				return fmt.Errorf("--%s=%s: %w", t.flag, v, err)
			}
			d.Write, d.Ops = t.write, t.ops
			h.IO = append(h.IO, d)
		}
	}
	return nil
}

// ioLimit parses DEVICE:RATE; a rate in bytes may have a unit.
func ioLimit(v string, ops bool) (workload.IOLimit, error) {
	var none workload.IOLimit
	i := strings.LastIndexByte(v, ':')
	if i < 1 || !strings.HasPrefix(v, "/") {
		return none, fmt.Errorf("want DEVICE:RATE, as /dev/vda:1m")
	}
	rate, err := strconv.ParseUint(v[i+1:], 10, 63)
	if err != nil && !ops {
		var n int64
		n, err = units.RAMInBytes(v[i+1:])
		rate = uint64(max(n, 0))
	}
	if err != nil || rate == 0 {
		return none, fmt.Errorf("%q is not a rate above 0", v[i+1:])
	}
	var st unix.Stat_t
	if err := unix.Stat(v[:i], &st); err != nil {
		return none, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return none, fmt.Errorf("%s is not a block device", v[:i])
	}
	return workload.IOLimit{Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), Rate: rate}, nil
}

func (l *limitFlags) parseRest(h *workload.HostLimits, fs *pflag.FlagSet, _ *Options) error {
	for _, v := range l.hugePages {
		page, size, _ := strings.Cut(v, ":")
		n, err := units.RAMInBytes(size)
		if err != nil || !pageSize(page) {
			return fmt.Errorf("--hugetlb-limit=%s: want PAGESIZE:SIZE, as 2MB:64m", v)
		}
		h.HugePages = append(h.HugePages, workload.HugePages{Size: page, Bytes: uint64(n)})
	}
	if fs.Changed("oom-score-adj") {
		if l.oomScore < -1000 || l.oomScore > 1000 {
			return fmt.Errorf("--oom-score-adj=%d: out of range -1000 to 1000", l.oomScore)
		}
		h.OOMScoreAdj = &l.oomScore
	}
	seen := map[int]bool{}
	for _, v := range l.ulimits {
		u, err := units.ParseUlimit(v)
		if err != nil {
			return fmt.Errorf("--ulimit=%s: %w", v, err)
		}
		r, err := u.GetRlimit()
		if err != nil {
			return fmt.Errorf("--ulimit=%s: %w", v, err)
		}
		if seen[r.Type] {
			return fmt.Errorf("--ulimit=%s: %s is there twice", v, u.Name)
		}
		seen[r.Type] = true
		l.rlimits = append(l.rlimits, workload.Rlimit{Resource: r.Type, Soft: r.Soft, Hard: r.Hard})
	}
	return nil
}

// pageSize reports whether s is the size of a page as the kernel spells it.
func pageSize(s string) bool {
	n := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(s, "KB"), "MB"), "GB")
	_, err := strconv.ParseUint(n, 10, 16)
	return err == nil && n != s
}
