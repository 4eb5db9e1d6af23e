package oci

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/duplex-run/duplex/container/cgroup"
)

// A program that is killed for want of memory ends with 137, and it is said; a
// container of which events are watched shows it there.
func TestOOMKill(t *testing.T) {
	limit := int64(64 << 20)
	b := newBundle(t, "eat")
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	b.save(t)
	o := b.options(t, nil)
	var said []string
	o.Warn = func(s string) { said = append(said, s) }
	status, err := Run(t.Context(), RunOptions{CreateOptions: o})
	if err != nil || status != 137 || !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, "killed for want of memory") }) {
		t.Errorf("status %d, %v; said %q", status, err, said)
	}
	b.nothingLeft(t)

	c := b.create(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var kinds []string
	err = c.Events(ctx, time.Hour, func(e Event) error {
		kinds = append(kinds, e.Type)
		if e.Type == "stats" { // the watch has begun
			return c.Start(t.Context())
		}
		return nil
	})
	if err != nil || !slices.Equal(kinds, []string{"stats", "oom"}) {
		t.Errorf("events %q, %v", kinds, err)
	}
}

// A new set of limits may come with the rules for devices that there were, as
// Kubernetes sends it, and not with others.
func TestUpdate(t *testing.T) {
	b := newBundle(t, "wait")
	c := b.create(t)
	limit := int64(64 << 20)
	res := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, Devices: b.spec.Linux.Resources.Devices}
	must(t, c.Update(res))
	if got := c.Cgroups.Stats().Memory.Usage.Limit; got != uint64(limit) {
		t.Errorf("the limit is %d, want %d", got, limit)
	}
	res.Devices = append(slices.Clone(res.Devices), specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"})
	if err := c.Update(res); err == nil || !strings.Contains(err.Error(), "update of devices is not supported") {
		t.Errorf("other devices: %v", err)
	}
}

// The program's memory has the policy of the bundle, which the kernel shows for
// each mapping (numa(7)); an impossible one is the kernel's error.
func TestMemoryPolicy(t *testing.T) {
	b := newBundle(t, "cat", "/proc/self/numa_maps")
	b.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: "0", Flags: []specs.MemoryPolicyFlagType{"MPOL_F_STATIC_NODES"}}
	if out := b.output(t); !strings.Contains(out, " bind=static:0 ") {
		t.Errorf("numa_maps:\n%s", out)
	}
	b.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_BIND"}
	if _, _, err := b.run(t); err == nil || !strings.Contains(err.Error(), "set the memory policy: invalid argument") {
		t.Errorf("no nodes: %v", err)
	}
}

// exec --cgroup enters groups below the container's, and no others.
func TestExecCgroup(t *testing.T) {
	b := newBundle(t, "wait")
	c := b.create(t)
	must(t, c.Start(t.Context()))
	for _, d := range c.Cgroups.Dirs {
		must(t, os.Mkdir(filepath.Join(d.Path, "below"), 0o755))
		if d.Name == "cpuset" {
			must(t, cgroup.InheritCpuset(filepath.Join(d.Path, "below")))
		}
	}
	exec := func(cgroup string) (string, error) {
		out, err := os.CreateTemp(t.TempDir(), "out")
		must(t, err)
		p := c.ExecProcess([]string{"/bin/work", "cat", "/proc/self/cgroup"})
		_, err = c.Exec(t.Context(), ExecOptions{Process: p, Cgroups: []string{cgroup}, Stdio: [3]*os.File{nil, out, out}})
		text, rerr := os.ReadFile(out.Name())
		must(t, rerr)
		return string(text), err
	}
	text, err := exec("below")
	must(t, err)
	if strings.Count(text, "/below\n") < len(c.Cgroups.Dirs) {
		t.Errorf("not in all groups:\n%s", text)
	}
	for cgroup, want := range map[string]string{"nothing": "no such cgroup", "../..": "", "moon:below": "of that controller"} {
		text, err := exec(cgroup)
		if want == "" && err == nil && !strings.Contains(text, "..") {
			continue // that is the container's own
		}
		if want == "" || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--cgroup %s: %v, %q", cgroup, err, text)
		}
	}
}

// exec runs on the CPUs of final, and without them on those of initial.
func TestExecCPUAffinity(t *testing.T) {
	cpus, err := os.ReadFile("/sys/fs/cgroup/cpuset.cpus.effective")
	if errors.Is(err, os.ErrNotExist) {
		cpus, err = os.ReadFile("/sys/devices/system/cpu/online")
	}
	must(t, err)
	all, err := cgroup.ParseList(strings.TrimSpace(string(cpus)))
	must(t, err)
	last := all[len(all)-1]
	b := newBundle(t, "wait")
	c := b.create(t)
	must(t, c.Start(t.Context()))
	for _, tt := range []struct {
		affinity specs.CPUAffinity
		want     int
	}{
		{specs.CPUAffinity{Initial: "0"}, 0},
		{specs.CPUAffinity{Initial: "0", Final: strconv.Itoa(last)}, last},
		{specs.CPUAffinity{Final: strconv.Itoa(last)}, last},
	} {
		p := c.ExecProcess([]string{"/bin/work", "cat", "/proc/self/status"})
		p.ExecCPUAffinity = &tt.affinity
		out, err := os.CreateTemp(t.TempDir(), "out")
		must(t, err)
		status, err := c.Exec(t.Context(), ExecOptions{Process: p, Stdio: [3]*os.File{nil, out, out}})
		must(t, err)
		text, err := os.ReadFile(out.Name())
		must(t, err)
		if status != 0 || !strings.Contains(string(text), "Cpus_allowed_list:\t"+strconv.Itoa(tt.want)+"\n") {
			t.Errorf("%+v: status %d, want CPU %d in\n%s", tt.affinity, status, tt.want, text)
		}
	}
}
