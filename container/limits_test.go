package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/cgroup"
	"github.com/duplex-run/duplex/internal/workload"
)

// What the kernel's files say inside a container with a limit, on either version.
// A limit that this host's kernel or its mounts cannot keep is an error that names
// the controller.
func TestHostLimits(t *testing.T) {
	disk := firstDisk(t)
	mib := int64(1 << 20)
	for _, tt := range []struct {
		name         string
		controller   string
		res          workload.Resources
		v1, want1    string
		v2, want2    string
		mayBeMissing bool
	}{
		{"swap", "memory", workload.Resources{MemoryBytes: 64 * mib, Host: &workload.HostLimits{MemorySwap: 96 * mib}},
			"memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "33554432", false},
		{"no swap", "memory", workload.Resources{MemoryBytes: 64 * mib},
			"memory.memsw.limit_in_bytes", "67108864", "memory.swap.max", "0", false},
		{"reservation", "memory", workload.Resources{Host: &workload.HostLimits{MemoryReservation: 32 * mib}},
			"memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432", false},
		{"shares", "cpu", workload.Resources{Host: &workload.HostLimits{CPUShares: 512}},
			"cpu.shares", "512", "cpu.weight", "20", false},
		{"quota", "cpu", workload.Resources{CPUs: 0.5, Host: &workload.HostLimits{CPUPeriod: 50_000}},
			"cpu.cfs_quota_us", "25000", "cpu.max", "25000 50000", false},
		{"processors", "cpuset", workload.Resources{Host: &workload.HostLimits{CPUSet: "0"}},
			"cpuset.cpus", "0", "cpuset.cpus", "0", false},
		{"nodes", "cpuset", workload.Resources{Host: &workload.HostLimits{MemSet: "0"}},
			"cpuset.mems", "0", "cpuset.mems", "0", false},
		{"reads", "io", workload.Resources{Host: &workload.HostLimits{IO: []workload.IOLimit{{Major: disk[0], Minor: disk[1], Rate: 1 << 20}}}},
			"blkio.throttle.read_bps_device", fmt.Sprintf("%d:%d 1048576", disk[0], disk[1]),
			"io.max", fmt.Sprintf("%d:%d rbps=1048576 wbps=max riops=max wiops=max", disk[0], disk[1]), true},
		{"writes", "io", workload.Resources{Host: &workload.HostLimits{IO: []workload.IOLimit{{Major: disk[0], Minor: disk[1], Write: true, Ops: true, Rate: 100}}}},
			"blkio.throttle.write_iops_device", fmt.Sprintf("%d:%d 100", disk[0], disk[1]),
			"io.max", fmt.Sprintf("%d:%d rbps=max wbps=max riops=max wiops=100", disk[0], disk[1]), true},
		{"weight", "io", workload.Resources{Host: &workload.HostLimits{IOWeight: 500}},
			"blkio.weight blkio.bfq.weight", "500", "io.weight io.bfq.weight", "default 4950", true},
		{"weight of a disk", "io", workload.Resources{Host: &workload.HostLimits{IOWeights: []workload.IOWeight{{Major: disk[0], Minor: disk[1], Weight: 500}}}},
			"blkio.weight_device blkio.bfq.weight_device", fmt.Sprintf("%d:%d 500", disk[0], disk[1]),
			"io.weight io.bfq.weight", fmt.Sprintf("default 100\n%d:%d 4950", disk[0], disk[1]), true},
		{"huge pages", "hugetlb", workload.Resources{Host: &workload.HostLimits{HugePages: []workload.HugePages{{Size: "2MB", Bytes: 4 << 20}}}},
			"hugetlb.2MB.limit_in_bytes", "4194304", "hugetlb.2MB.max", "4194304", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files, want := insideCgroup(t, tt.controller, tt.v1, tt.want1, tt.v2, tt.want2)
			spec := newSpec(newTree(t), append([]string{"catany"}, files...)...)
			spec.Resources = tt.res
			r, err := tryRun(t, spec, nil)
			var missing *cgroup.MissingError
			if errors.As(err, &missing) {
				if os.Geteuid() == 0 && !tt.mayBeMissing || !strings.Contains(missing.Controller, strings.TrimPrefix(tt.controller, "blk")) {
					t.Errorf("%v", err)
				}
				return
			}
			must(t, err)
			if strings.TrimSpace(r.out) != want {
				t.Errorf("%v is %q, want %q (%+v)", files, r.out, want, r.exit)
			}
		})
	}
}

// What only cgroup v1 has: there the files say it, elsewhere it is an error that
// names the limit. Real-time groups are an option of the kernel's, and a part of
// what the caller's group has.
func TestOldLimits(t *testing.T) {
	layout, err := cgroup.Find()
	must(t, err)
	swappiness, mib := uint64(7), int64(1<<20)
	for _, tt := range []struct {
		name, controller, file, want, refused string
		res                                   workload.Resources
	}{
		{"swappiness", "memory", "memory.swappiness", "7\n", "swappiness is not supported on cgroup v2",
			workload.Resources{Host: &workload.HostLimits{Swappiness: &swappiness}}},
		{"OOM", "memory", "memory.oom_control", "oom_kill_disable 1\n", "disableOOMKiller is not supported on cgroup v2",
			workload.Resources{MemoryBytes: 64 * mib, Host: &workload.HostLimits{OOMKillDisable: true}}},
		{"real time", "cpu", "cpu.rt_runtime_us", "5000\n", "realtimePeriod are not supported on cgroup v2",
			workload.Resources{Host: &workload.HostLimits{RTRuntime: 5000, RTPeriod: 1_000_000}}},
	} {
		h := layout.By[tt.controller]
		spec := newSpec(newTree(t), "cat", filepath.Join("/sys/fs/cgroup", h.Name, tt.file))
		spec.Resources = tt.res
		r, err := tryRun(t, spec, nil)
		_, noFile := os.Stat(filepath.Join(h.Own, tt.file))
		var missing *cgroup.MissingError
		switch {
		case errors.As(err, &missing) && (os.Geteuid() != 0 || h.Own == ""):
		case h.V2() && (err == nil || !strings.Contains(err.Error(), tt.refused)):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.refused)
		case !h.V2() && noFile != nil && (err == nil || !strings.Contains(err.Error(), "has no "+tt.file)):
			t.Errorf("%s: %v, want that the kernel has no %s", tt.name, err, tt.file)
		case !h.V2() && noFile == nil && (err != nil || !strings.Contains(r.out, tt.want)):
			t.Errorf("%s: %q, %v, want %q", tt.name, r.out, err, tt.want)
		case tt.name == "OOM" && !h.V2(): // a program that waits for memory can be killed
			spec = newSpec(newTree(t), "hog", "256")
			spec.Resources, spec.Timeout = tt.res, time.Second
			if r := runIt(t, spec); !r.exit.TimedOut || r.exit.OOM {
				t.Errorf("out of memory: %+v %q", r.exit, r.out)
			}
		}
	}
}

// insideCgroup is where a container sees the files of a controller, one of which
// there is, and what is to be in it. A container of a host that has both versions
// does not see the v2 ones: then it is nothing.
func insideCgroup(t *testing.T, controller, v1, want1, v2, want2 string) (files []string, want string) {
	t.Helper()
	l, err := cgroup.Find()
	must(t, err)
	h, ok := l.By[controller]
	if old, is := l.By["blkio"]; controller == "io" && is {
		h, ok = old, true
	}
	names, dir, want := v2, "/sys/fs/cgroup", want2
	switch {
	case ok && !h.V2():
		names, dir, want = v1, filepath.Join(dir, h.Name), want1
	case ok && !cgroup.OnlyUnified():
		return nil, ""
	}
	for _, name := range strings.Fields(names) {
		files = append(files, filepath.Join(dir, name))
	}
	return files, want
}

// firstDisk is the number of a disk of this host.
func firstDisk(t *testing.T) [2]int64 {
	t.Helper()
	files, err := filepath.Glob("/sys/block/*/dev")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("this host has no block device at all")
	}
	var d [2]int64
	b, err := os.ReadFile(files[len(files)-1])
	must(t, err)
	_, err = fmt.Sscanf(string(b), "%d:%d", &d[0], &d[1])
	must(t, err)
	return d
}

// The limits that are no matter of control groups.
func TestProcessLimits(t *testing.T) {
	score := 500
	spec := newSpec(newTree(t), "cat", "/proc/self/limits", "/proc/self/oom_score_adj")
	spec.Resources.Host = &workload.HostLimits{OOMScoreAdj: &score}
	spec.Rlimits = []workload.Rlimit{{Resource: unix.RLIMIT_MSGQUEUE, Soft: 100, Hard: 200}, {Resource: unix.RLIMIT_CORE}}
	r := runIt(t, spec)
	for _, want := range []string{"Max msgqueue size         100                  200", "Max core file size        0                    0", "\n500\n"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
	spec = newSpec(newTree(t), "statfs", "/dev/shm")
	spec.ShmBytes = 8 << 20
	if r := runIt(t, spec); r.out != "8388608\n" {
		t.Errorf("/dev/shm has %q bytes", r.out)
	}
}
