package cgroup

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Controllers that are not only named in tables.
const (
	Memory = "memory"
	Pids   = "pids"
	cpuset = "cpuset"
)

// Hierarchy is one mounted tree of control groups.
type Hierarchy struct {
	// Name is "" for v2, or the v1 controllers as mounted: "cpu,cpuacct".
	Name string
	// Mount is where it is mounted, Own the caller's own directory below.
	Mount, Own string
}

// V2 reports whether h is the unified hierarchy.
func (h Hierarchy) V2() bool { return h.Name == "" }

// Layout is what Find found.
type Layout struct {
	// By maps a controller to the hierarchy that has it.
	By map[string]Hierarchy
	// Unified is the v2 hierarchy, when it is mounted.
	Unified *Hierarchy
}

// Find reads the layout of the calling process's host.
func Find() (Layout, error) {
	own, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return Layout{}, err // the kernel has no cgroups
	}
	defer func() { _ = own.Close() }()
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return Layout{}, err
	}
	defer func() { _ = mounts.Close() }()
	l, err := parse(own, mounts)
	if err != nil {
		return Layout{}, err
	}
	if l.Unified == nil {
		return l, nil
	}
	b, err := os.ReadFile(filepath.Join(l.Unified.Mount, "cgroup.controllers"))
	if err != nil {
		return l, nil // not readable: as good as none
	}
	for _, c := range strings.Fields(string(b)) {
		if _, ok := l.By[c]; !ok {
			l.By[c] = *l.Unified
		}
	}
	return l, nil
}

// OnlyUnified reports whether /sys/fs/cgroup of this host is cgroup v2.
func OnlyUnified() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// parse reads /proc/PID/cgroup (cgroups(7)) and /proc/PID/mountinfo (proc(5)).
func parse(own, mounts io.Reader) (Layout, error) {
	paths, err := parseOwn(own)
	if err != nil {
		return Layout{}, err
	}
	l := Layout{By: map[string]Hierarchy{}}
	sc := bufio.NewScanner(mounts)
	for sc.Scan() {
		m, ok := parseMount(sc.Text())
		if !ok {
			continue
		}
		if m.fstype == "cgroup2" {
			if dir, ok := inside(m, paths[""]); ok && l.Unified == nil {
				l.Unified = &Hierarchy{Mount: m.point, Own: dir}
			}
			continue
		}
		for _, c := range strings.Split(m.options, ",") {
			path, known := paths[c]
			if _, seen := l.By[c]; !known || seen || c == "" {
				continue
			}
			if dir, ok := inside(m, path); ok {
				l.By[c] = Hierarchy{Name: controllers(m.options, paths), Mount: m.point, Own: dir}
			}
		}
	}
	return l, sc.Err()
}

// parseOwn maps each controller, "" for v2, to the caller's path.
func parseOwn(r io.Reader) (map[string]string, error) {
	paths := map[string]string{}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.SplitN(sc.Text(), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			return nil, fmt.Errorf("parse /proc/self/cgroup: line %q", sc.Text())
		}
		if f[1] == "" && f[0] != "0" {
			continue // a named v1 hierarchy whose name is lost
		}
		for _, c := range strings.Split(f[1], ",") {
			paths[c] = f[2]
		}
	}
	return paths, sc.Err()
}

// controllers keeps of a v1 mount's options those that are controllers.
func controllers(options string, paths map[string]string) string {
	list := slices.DeleteFunc(strings.Split(options, ","), func(o string) bool {
		_, ok := paths[o]
		return !ok
	})
	return strings.Join(list, ",")
}

// mount is the part of a mountinfo line that matters here.
type mount struct{ root, point, fstype, options string }

func parseMount(line string) (mount, bool) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 6 || len(r) < 3 || r[0] != "cgroup" && r[0] != "cgroup2" {
		return mount{}, false
	}
	return mount{root: unescape(l[3]), point: unescape(l[4]), fstype: r[0], options: r[2]}, true
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) { // most: a replacer takes its time
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// inside returns where the group path is below mount m, whose root may itself
// be a group (inside a container).
func inside(m mount, path string) (string, bool) {
	if path == "" {
		return "", false
	}
	if m.root == "/" || m.root == path {
		if m.root == path {
			path = "/"
		}
		return filepath.Join(m.point, path), true
	}
	rest, ok := strings.CutPrefix(path, m.root+"/")
	return filepath.Join(m.point, rest), ok
}
