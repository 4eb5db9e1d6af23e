package oci

import (
	"fmt"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
)

// defaultDevices are those of every container (config-linux.md, "Default
// Devices"); /dev/console is made with a terminal only, /dev/ptmx is a link.
var defaultDevices = []handshake.Device{
	{Path: "/dev/null", Major: 1, Minor: 3}, {Path: "/dev/zero", Major: 1, Minor: 5},
	{Path: "/dev/full", Major: 1, Minor: 7}, {Path: "/dev/random", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Major: 1, Minor: 9}, {Path: "/dev/tty", Major: 5, Minor: 0},
}

// deviceKinds maps the type of a device to its S_IF* bits.
var deviceKinds = map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}

func checkDevices(s *specs.Spec) error {
	for i, d := range s.Linux.Devices {
		if _, err := devicePlan(d); err != nil {
			return fmt.Errorf("linux.devices[%d] (%s): %w", i, d.Path, err)
		}
	}
	if s.Linux.Resources == nil {
		return nil
	}
	for i, d := range s.Linux.Resources.Devices {
		if err := checkDeviceRule(d); err != nil {
			return fmt.Errorf("linux.resources.devices[%d]: %w", i, err)
		}
	}
	return nil
}

func devicePlan(d specs.LinuxDevice) (handshake.Device, error) {
	kind, ok := deviceKinds[d.Type]
	switch {
	case !ok:
		return handshake.Device{}, fmt.Errorf("type %q is not one of c, b, u, p", d.Type)
	case !path.IsAbs(d.Path) || path.Clean(d.Path) == "/":
		return handshake.Device{}, fmt.Errorf("path %q is not an absolute path of a file", d.Path)
	case kind != unix.S_IFIFO && (d.Major < 0 || d.Major > 1<<12-1 || d.Minor < 0 || d.Minor > 1<<20-1):
		return handshake.Device{}, fmt.Errorf("number %d:%d is out of range", d.Major, d.Minor)
	}
	if err := plain("path", d.Path); err != nil {
		return handshake.Device{}, err
	}
	out := handshake.Device{Path: path.Clean(d.Path), Mode: kind | 0o666, Major: uint32(d.Major), Minor: uint32(d.Minor)}
	if d.FileMode != nil {
		out.Mode = kind | uint32(*d.FileMode)&0o7777
	}
	if d.UID != nil {
		out.UID = *d.UID
	}
	if d.GID != nil {
		out.GID = *d.GID
	}
	return out, nil
}

// checkDeviceRule checks a rule of the device cgroup.
func checkDeviceRule(d specs.LinuxDeviceCgroup) error {
	switch d.Type {
	case "", "a", "b", "c":
	default:
		return fmt.Errorf("type %q is not one of a, b, c", d.Type)
	}
	for _, c := range d.Access {
		if c != 'r' && c != 'w' && c != 'm' {
			return fmt.Errorf("access %q: %q is not one of r, w, m", d.Access, c)
		}
	}
	for _, n := range []*int64{d.Major, d.Minor} {
		if n != nil && (*n < -1 || *n > 1<<32-1) {
			return fmt.Errorf("number %d is out of range", *n)
		}
	}
	return nil
}

// devices returns the nodes to make: the default ones, but where the bundle has
// another for the path, then the bundle's.
func devices(list []specs.LinuxDevice) ([]handshake.Device, error) {
	own := map[string]bool{}
	var more []handshake.Device
	for _, d := range list {
		p, err := devicePlan(d)
		if err != nil {
			return nil, err
		}
		own[p.Path] = true
		more = append(more, p)
	}
	var out []handshake.Device
	for _, d := range defaultDevices {
		if !own[d.Path] {
			d.Mode = unix.S_IFCHR | 0o666
			out = append(out, d)
		}
	}
	return append(out, more...), nil
}
