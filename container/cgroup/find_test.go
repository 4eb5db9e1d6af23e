package cgroup

import (
	"reflect"
	"strings"
	"testing"
)

const (
	hybridMounts = `35 25 0:30 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
36 35 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
37 35 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
38 35 0:33 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
39 35 0:34 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`
	hybridOwn = `5:name=systemd:/s
4:memory:/a/b
3:cpu,cpuacct:/
0::/s
`
)

func TestParse(t *testing.T) {
	unified := func(dir string) Layout {
		return Layout{By: map[string]Hierarchy{}, Unified: &Hierarchy{Mount: "/sys/fs/cgroup", Own: dir}}
	}
	cpu := Hierarchy{Name: "cpu,cpuacct", Mount: "/sys/fs/cgroup/cpu,cpuacct", Own: "/sys/fs/cgroup/cpu,cpuacct"}
	for _, tt := range []struct {
		name, own, mounts string
		want              Layout
	}{
		{"v2", "0::/user.slice/x.scope\n", "30 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
			unified("/sys/fs/cgroup/user.slice/x.scope")},
		{"v2 at the root", "0::/\n", "30 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", unified("/sys/fs/cgroup")},
		{"v2 in a container without a namespace", "0::/docker/abc/x\n",
			"30 24 0:27 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n", unified("/sys/fs/cgroup/x")},
		{"v2, the mount shows another part of the tree", "0::/other\n",
			"30 24 0:27 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n", Layout{By: map[string]Hierarchy{}}},
		{"hybrid", hybridOwn, hybridMounts, Layout{
			By: map[string]Hierarchy{
				"cpu": cpu, "cpuacct": cpu,
				"memory":       {Name: "memory", Mount: "/sys/fs/cgroup/memory", Own: "/sys/fs/cgroup/memory/a/b"},
				"name=systemd": {Name: "name=systemd", Mount: "/sys/fs/cgroup/systemd", Own: "/sys/fs/cgroup/systemd/s"},
			},
			Unified: &Hierarchy{Mount: "/sys/fs/cgroup/unified", Own: "/sys/fs/cgroup/unified/s"},
		}},
		{"escaped", "0::/\n", `30 24 0:27 / /mnt/a\040b rw - cgroup2 cgroup2 rw` + "\n",
			Layout{By: map[string]Hierarchy{}, Unified: &Hierarchy{Mount: "/mnt/a b", Own: "/mnt/a b"}}},
		{"nothing mounted", "0::/\n", "", Layout{By: map[string]Hierarchy{}}},
		{"no cgroups", "", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n", Layout{By: map[string]Hierarchy{}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parse(strings.NewReader(tt.own), strings.NewReader(tt.mounts))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v\nwant %+v", got, tt.want)
			}
		})
	}
	if _, err := parse(strings.NewReader("nonsense\n"), strings.NewReader("")); err == nil {
		t.Error("a line that is no group: no error")
	}
}

// This host's own layout is found, whatever it is.
func TestFind(t *testing.T) {
	l, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	if len(l.By) == 0 && l.Unified == nil {
		t.Error("no hierarchy found")
	}
	for c, h := range l.By {
		if !strings.HasPrefix(h.Own, h.Mount) {
			t.Errorf("%s: %+v is not below its mount", c, h)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(hybridOwn, hybridMounts)
	f.Fuzz(func(t *testing.T, own, mounts string) {
		l, err := parse(strings.NewReader(own), strings.NewReader(mounts))
		if err != nil {
			return
		}
		for c, h := range l.By {
			if h.V2() || c == "" {
				t.Errorf("controller %q in %+v", c, h)
			}
		}
	})
}

func TestKeyed(t *testing.T) {
	const text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"
	if n := keyed(text, "oom_kill"); n != 3 {
		t.Errorf("%d, want 3", n)
	}
	if n := keyed(text, "oom"); n != 0 {
		t.Errorf("%d for a key that is not there", n)
	}
}
