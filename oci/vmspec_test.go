package oci

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/duplex-run/duplex/internal/workload"
)

// machineSpec is the example, checked, as a microVM's.
func machineSpec(t testing.TB, change func(*specs.Spec)) *specs.Spec {
	t.Helper()
	s := Example()
	if change != nil {
		change(s)
	}
	data, err := json.Marshal(s)
	must(t, err)
	s, err = Parse(data)
	must(t, err)
	return s
}

func TestPlanGuest(t *testing.T) {
	limit, quota, period := int64(100<<20+1), int64(150_000), uint64(100_000)
	shares := uint64(512)
	s := machineSpec(t, func(s *specs.Spec) {
		s.Root.Path = "/b/root"
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/a", Type: "bind", Source: "rel", Options: []string{"rbind", "rro"}},
			specs.Mount{Destination: "/b", Type: "none", Source: "/abs", Options: []string{"bind", "ro", "rw"}})
		s.Linux.Resources = &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: &limit},
			CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &shares},
		}
		s.Linux.CgroupsPath = "/engine/x"
		s.Process.ApparmorProfile = "containers-default"
		s.Annotations = map[string]string{IsolationAnnotation: "vm", "other": "stays"}
	})
	g, err := planGuest(s, "/bundle")
	must(t, err)
	n := len(s.Mounts)
	want := []guestBind{
		{Name: "rootfs", Source: "/b/root", Recursive: true},
		{Source: "/bundle/rel", Recursive: true, ReadOnly: true},
		{Source: "/abs"},
	}
	for i, b := range g.binds {
		b.What = ""
		if i > 0 {
			if b.Name == "" || g.spec.Mounts[n-3+i].Source != guestDir+"/"+b.Name {
				t.Errorf("bind %q, the guest's source %q", b.Name, g.spec.Mounts[n-3+i].Source)
			}
			b.Name = ""
		}
		if i >= len(want) || b != want[i] {
			t.Errorf("bind %d: %+v", i, b)
		}
	}
	r := g.spec.Linux.Resources
	if g.memory != 100<<20+4096+guestMemory || *r.Memory.Limit != limit {
		t.Errorf("machine of %d bytes, limit in it %d", g.memory, *r.Memory.Limit)
	}
	if g.cpus != 1.5 || r.CPU != nil || g.host == nil || *g.host.CPU.Shares != 512 || g.host.CPU.Quota != nil {
		t.Errorf("%v CPUs, the guest's limits %+v, the host's %+v", g.cpus, r.CPU, g.host)
	}
	if g.net != netNamespace || g.spec.Root.Path != "/duplex/rootfs" || g.spec.Process.ApparmorProfile != "" || len(g.warn) != 1 {
		t.Errorf("network %s, root %s, warnings %q", g.net, g.spec.Root.Path, g.warn)
	}
	if len(g.spec.Annotations) != 1 || s.Annotations[IsolationAnnotation] != "vm" {
		t.Errorf("annotations %v of the guest, %v", g.spec.Annotations, s.Annotations)
	}
	// The guest's runtime has to accept it.
	data, err := json.Marshal(g.spec)
	must(t, err)
	if _, err := Parse(data); err != nil {
		t.Error(err)
	}
}

// Each row is what a machine cannot do, and the word that the error has.
func TestPlanGuestRefuses(t *testing.T) {
	weight, rt := uint16(100), int64(1000)
	drop := func(s *specs.Spec, kind specs.LinuxNamespaceType) {
		var out []specs.LinuxNamespace
		for _, n := range s.Linux.Namespaces {
			if n.Type != kind {
				out = append(out, n)
			}
		}
		s.Linux.Namespaces = out
	}
	tests := map[string]struct {
		change func(*specs.Spec)
		want   string
	}{
		"host's pid namespace":     {func(s *specs.Spec) { drop(s, specs.PIDNamespace) }, "pid namespace"},
		"host's network namespace": {func(s *specs.Spec) { drop(s, specs.NetworkNamespace) }, NetworkAnnotation},
		"no such network":          {func(s *specs.Spec) { s.Annotations = map[string]string{NetworkAnnotation: "tap"} }, `"tap"`},
		"joined user namespace": {func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: "/proc/1/ns/user"})
		}, "user namespace"},
		"block device": {func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/sda", Type: "b", Major: 8}}
		}, "/dev/sda"},
		"file system of the host": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/m", Type: "ext4", Source: "/dev/sda1"})
		}, "ext4"},
		"shared mount": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/m", Type: "bind", Source: "/m", Options: []string{"rshared", "rbind"}})
		}, "shared"},
		"interfaces":  {func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}} }, "linux.netDevices in a microVM"},
		"shared root": {func(s *specs.Spec) { s.Linux.RootfsPropagation = "rshared" }, "rootfsPropagation"},
		"io weight": {func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: &weight}}
		}, "blockIO"},
		"real time": {func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimeRuntime: &rt}}
		}, "realtime"},
		"huge pages": {func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 1}}}
		}, "hugepageLimits"},
		"createContainer hook": {func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/true"}}}
		}, "createContainer"},
		"seccomp listener": {func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/run/x",
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
		}, "listenerPath"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := planGuest(machineSpec(t, tt.change), "/bundle")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestIsolation(t *testing.T) {
	for _, tt := range []struct {
		flag, annotation, want, err string
	}{
		{"", "", "container", ""}, {"", "vm", "vm", ""}, {"container", "vm", "container", ""},
		{"vm", "", "vm", ""}, {"vm", "sandbox", "container", ""}, {"jail", "", "", "--isolation"}, {"", "Vm", "", IsolationAnnotation},
	} {
		s := Example()
		s.Annotations = map[string]string{IsolationAnnotation: tt.annotation}
		if tt.annotation == "sandbox" {
			s.Annotations = map[string]string{sandboxAnnotations[0]: tt.annotation}
		}
		got, err := CreateOptions{Isolation: workload.Isolation(tt.flag)}.isolation(s)
		if string(got) != tt.want || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%+v: %q, %v", tt, got, err)
		}
	}
}

// What a guest says is bounded, printable, and an error only when it says so.
func FuzzWord(f *testing.F) {
	f.Add([]byte(`{"error":"no\u001b[2J","status":300}`))
	f.Add([]byte(`{"procs":[{"pid":1,"args":"x"}],"stats":{}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, line []byte) {
		w, err := parseWord(line)
		if err != nil {
			return
		}
		err = w.err()
		if (err != nil) != (w.Error != "") {
			t.Errorf("%q: %v", line, err)
		}
		if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
			t.Errorf("%q: %q", line, err)
		}
	})
}

// A bundle that was accepted is divided, or refused by name, and what the guest
// gets is accepted there.
func FuzzPlanGuest(f *testing.F) {
	for _, s := range []*specs.Spec{Example(), {Version: "1.0.0", Root: &specs.Root{Path: "/r"}}} {
		data, err := json.Marshal(s)
		must(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			return
		}
		g, err := planGuest(s, "/bundle")
		if err != nil {
			return
		}
		again, err := json.Marshal(g.spec)
		if err == nil {
			_, err = Parse(again)
		}
		if err != nil {
			t.Errorf("%s\nbecame\n%s\n%v", data, again, err)
		}
	})
}
