package runcli

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// parseLimits parses args as `duplex run --ISO` would.
func parseLimits(t *testing.T, iso workload.Isolation, args string) (workload.Spec, error) {
	t.Helper()
	a := &App{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}, Cmd: RunCommand}
	var f Flags
	fs := a.Flags()
	f.Register(fs)
	if err := a.Parse(fs, strings.Fields(args)); err != nil {
		return workload.Spec{}, err
	}
	var s workload.Spec
	err := f.limits.parse(fs, iso, &f.Options)
	f.limits.apply(&s)
	return s, err
}

func TestLimitFlags(t *testing.T) {
	s, err := parseLimits(t, workload.Container, "-m 64m --memory-swap -1 --memory-reservation 32m --cpu-shares 512 --cpu-quota 5000 --cpu-period 10000 "+
		"--cpuset-cpus 0-1 --cpuset-mems 0 --blkio-weight 10 --hugetlb-limit 2MB:64m --ulimit nofile=10:20 --ulimit core=-1 --oom-score-adj -5 --shm-size 1m")
	if err != nil {
		t.Fatal(err)
	}
	score := -5
	want := workload.Spec{ShmBytes: 1 << 20,
		Rlimits: []workload.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: 10, Hard: 20}, {Resource: unix.RLIMIT_CORE, Soft: 1<<64 - 1, Hard: 1<<64 - 1}},
		Resources: workload.Resources{CPUs: 0.5, Host: &workload.HostLimits{MemorySwap: -1, MemoryReservation: 32 << 20, CPUShares: 512,
			CPUPeriod: 10000, CPUSet: "0-1", MemSet: "0", IOWeight: 10, HugePages: []workload.HugePages{{Size: "2MB", Bytes: 64 << 20}}, OOMScoreAdj: &score}}}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	s, err = parseLimits(t, workload.VM, "--cpu-quota 50000 --ulimit nproc=7 --shm-size 1m")
	if err != nil || s.Resources.CPUs != 0.5 || s.Resources.Host != nil || len(s.Rlimits) != 1 {
		t.Errorf("a microVM: %+v, %v", s, err)
	}
}

func TestLimitFlagsRefused(t *testing.T) {
	for args, want := range map[string]string{
		"--memory-swap 1g":                     "--memory-swap needs --memory",
		"-m 64m --memory-swap 32m":             "less than --memory=64m",
		"-m 64m --memory-swap x":               "not a size",
		"-m 64m --memory-reservation 65m":      "more than --memory=64m",
		"--memory-reservation 1k":              "less than the minimum",
		"--shm-size 1":                         "less than the minimum",
		"--cpu-shares 1":                       "out of range",
		"--cpu-quota 10":                       "out of range",
		"--cpu-period 10000":                   "--cpu-period needs --cpu-quota",
		"--cpu-quota 5000 --cpu-period 10":     "out of range 1000 to 1000000",
		"--cpus 1 --cpu-quota 5000":            "exclude each other",
		"--cpuset-cpus 3-1":                    "not a list",
		"--cpuset-mems x":                      "not a list",
		"--blkio-weight 5":                     "out of range 10 to 1000",
		"--blkio-weight-device /dev/null:50":   "not a block device",
		"--blkio-weight-device vda:50":         "want DEVICE:RATE",
		"--blkio-weight-device /dev/vda:heavy": "not a rate",
		"--device-read-bps /dev/null:1m":       "not a block device",
		"--device-write-bps /nonexistent:1m":   "no such file",
		"--device-read-iops /dev/null:x":       "not a rate",
		"--device-write-iops vda:1":            "want DEVICE:RATE",
		"--hugetlb-limit 2:1m":                 "want PAGESIZE:SIZE",
		"--ulimit nofile":                      "--ulimit=nofile",
		"--ulimit files=1":                     "--ulimit=files=1",
		"--ulimit nofile=2:1":                  "--ulimit=nofile=2:1",
		"--ulimit nofile=1 --ulimit nofile=2":  "twice",
		"--oom-score-adj 1001":                 "out of range",
		"--memory-swappiness 101":              "out of range 0 to 100",
		"--oom-kill-disable":                   "--oom-kill-disable needs --memory",
		"--cpu-rt-period 1000":                 "--cpu-rt-period needs --cpu-rt-runtime",
		"--cpu-rt-runtime 5 --cpu-rt-period 0": "out of range 1 to",
		"--cpu-rt-runtime 1000001":             "out of range 1 to 1000000, the period",
	} {
		if _, err := parseLimits(t, workload.Container, args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	for name := range containerOnly {
		if _, err := parseLimits(t, workload.VM, "--"+name+"=1"); err == nil || !strings.Contains(err.Error(), "--"+name+" is for containers: ") {
			t.Errorf("--%s of a microVM: %v", name, err)
		}
	}
}

// What only cgroup v1 can keep is refused by name on hosts that have the
// controller by v2.
func TestOldLimits(t *testing.T) {
	defer func(old func(string) bool) { hasV2 = old }(hasV2)
	for _, args := range []string{"--memory-swappiness 0", "-m 64m --oom-kill-disable", "--cpu-rt-runtime 1000", "--cpu-rt-runtime 1000 --cpu-rt-period 5000"} {
		hasV2 = func(string) bool { return true }
		if _, err := parseLimits(t, workload.Container, args); err == nil || !strings.Contains(err.Error(), "is for cgroup v1: this host has the") {
			t.Errorf("%s on v2: %v", args, err)
		}
		hasV2 = func(string) bool { return false }
		s, err := parseLimits(t, workload.Container, args)
		h := s.Resources.Host
		if err != nil || h.Swappiness == nil && !h.OOMKillDisable && h.RTRuntime != 1000 || h.RTRuntime > 0 && h.RTPeriod < 5000 {
			t.Errorf("%s on v1: %+v, %v", args, h, err)
		}
	}
	hasV2 = func(string) bool { return true }
	if _, err := parseLimits(t, workload.Container, "--memory-swappiness -1 --oom-kill-disable=false"); err != nil {
		t.Errorf("what is so anyway: %v", err)
	}
}
