package cgroups

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/cgroup"
)

// Access to a device, as bits (BPF_DEVCG_ACC_*, linux/bpf.h).
const (
	accessMknod = 1 << iota
	accessRead
	accessWrite
)

// rule is one rule for devices; the last one that matches counts.
type rule struct {
	allow        bool
	kind         byte  // 'b', 'c'
	major, minor int64 // -1 for all
	access       uint32
}

// defaultRules allow what every container needs (runc's list): making nodes,
// which gives no access, the default devices and pseudo-terminals.
var defaultRules = []rule{
	{true, 'c', -1, -1, accessMknod}, {true, 'b', -1, -1, accessMknod},
	{true, 'c', 1, 3, 7}, {true, 'c', 1, 8, 7}, {true, 'c', 1, 7, 7}, {true, 'c', 5, 0, 7},
	{true, 'c', 1, 5, 7}, {true, 'c', 1, 9, 7}, {true, 'c', 136, -1, 7}, {true, 'c', 5, 2, 7},
}

// Devices puts the rules of a bundle in force. Nothing is allowed but what they
// and defaultRules allow. Without a group there is nothing to do.
func (s *Set) Devices(list []specs.LinuxDeviceCgroup) error {
	if s == nil || len(s.Dirs) == 0 {
		return nil
	}
	rules := parseRules(list)
	if s.V2() {
		return attachFilter(s.Dirs[0].Path, filter(append(rules, defaultRules...)))
	}
	dir := s.Path("devices")
	if dir == "" {
		if len(list) == 0 {
			return nil
		}
		return errors.New("no devices cgroup is mounted here: linux.resources.devices cannot be enforced")
	}
	if err := cgroup.WriteFile(dir+"/devices.deny", "a"); err != nil {
		return fmt.Errorf("deny all devices: %w", cgroup.Bare(err))
	}
	for _, r := range rules {
		if err := writeV1(dir, r); err != nil {
			return err
		}
	}
	for _, r := range defaultRules {
		// The group above may deny it: then it is not this container's to have.
		if err := writeV1(dir, r); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return nil
}

// parseRules splits rules of type a into b and c. A rule without a number, or
// with -1, is for all.
func parseRules(list []specs.LinuxDeviceCgroup) []rule {
	var out []rule
	for _, d := range list {
		kinds := d.Type
		if kinds == "" || kinds == "a" {
			kinds = "bc"
		}
		for _, k := range []byte(kinds) {
			r := rule{allow: d.Allow, kind: k, major: -1, minor: -1, access: parseAccess(d.Access)}
			if d.Major != nil {
				r.major = *d.Major
			}
			if d.Minor != nil {
				r.minor = *d.Minor
			}
			out = append(out, r)
		}
	}
	return out
}

// parseAccess turns "rwm" into bits; none given are all.
func parseAccess(s string) uint32 {
	var out uint32
	for i, c := range "mrw" {
		if strings.ContainsRune(s, c) {
			out |= 1 << i
		}
	}
	if out == 0 {
		return accessMknod | accessRead | accessWrite
	}
	return out
}

// writeV1 writes one rule (Documentation/admin-guide/cgroup-v1/devices.rst).
func writeV1(dir string, r rule) error {
	number := func(n int64) string {
		if n < 0 {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	access := ""
	for i, c := range "mrw" {
		if r.access&(1<<i) != 0 {
			access += string(c)
		}
	}
	line := fmt.Sprintf("%c %s:%s %s", r.kind, number(r.major), number(r.minor), access)
	file := "devices.deny"
	if r.allow {
		file = "devices.allow"
	}
	if err := cgroup.WriteFile(dir+"/"+file, line); err != nil {
		return fmt.Errorf("write %q to %s: %w", line, file, err)
	}
	return nil
}

// attachFilter attaches prog to the v2 group dir; the kernel lets go of it with
// the group.
func attachFilter(dir string, prog []byte) error {
	f, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	fd, err := loadDeviceFilter(prog)
	if errors.Is(err, unix.ENOSYS) {
		return errors.New("linux.resources.devices: the kernel has no BPF for device rules (CONFIG_CGROUP_BPF; of duplex's own guest kernels, the minimal one has none)")
	}
	if err != nil {
		return fmt.Errorf("load the device filter: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := attachDeviceFilter(int(f.Fd()), fd); err != nil {
		return fmt.Errorf("attach the device filter: %w", err)
	}
	return nil
}
