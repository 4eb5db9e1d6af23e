package oci

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// namespaceTypes are the kinds of namespaces: their CLONE_NEW* flag and their
// name in /proc/PID/ns. The order is the one to join in: the user namespace
// gives the right to the others, the mount namespace takes the host's files away.
var namespaceTypes = []struct {
	kind specs.LinuxNamespaceType
	flag int
	file string
}{
	{specs.UserNamespace, unix.CLONE_NEWUSER, "user"},
	{specs.IPCNamespace, unix.CLONE_NEWIPC, "ipc"},
	{specs.UTSNamespace, unix.CLONE_NEWUTS, "uts"},
	{specs.NetworkNamespace, unix.CLONE_NEWNET, "net"},
	{specs.PIDNamespace, unix.CLONE_NEWPID, "pid"},
	{specs.CgroupNamespace, unix.CLONE_NEWCGROUP, "cgroup"},
	{specs.TimeNamespace, unix.CLONE_NEWTIME, "time"},
	{specs.MountNamespace, unix.CLONE_NEWNS, "mnt"},
}

// flagOf returns the CLONE_NEW* flag of a kind, 0 for an unknown one.
func flagOf(kind specs.LinuxNamespaceType) int {
	for _, t := range namespaceTypes {
		if t.kind == kind {
			return t.flag
		}
	}
	return 0
}

func namespace(s *specs.Spec, kind specs.LinuxNamespaceType) (specs.LinuxNamespace, bool) {
	for _, n := range s.Linux.Namespaces {
		if n.Type == kind {
			return n, true
		}
	}
	return specs.LinuxNamespace{}, false
}

func hasNamespace(s *specs.Spec, kind specs.LinuxNamespaceType) bool {
	_, ok := namespace(s, kind)
	return ok
}

// newNamespace reports whether the container gets a new namespace of that kind.
func newNamespace(s *specs.Spec, kind specs.LinuxNamespaceType) bool {
	n, ok := namespace(s, kind)
	return ok && n.Path == ""
}

func checkNamespaces(s *specs.Spec) error {
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, n := range s.Linux.Namespaces {
		switch {
		case flagOf(n.Type) == 0:
			return fmt.Errorf("linux.namespaces: type %q is not known", n.Type)
		case seen[n.Type]:
			return fmt.Errorf("linux.namespaces: type %s is there twice", n.Type)
		case n.Path != "" && !path.IsAbs(n.Path):
			return fmt.Errorf("linux.namespaces: path %q is not absolute", n.Path)
		}
		seen[n.Type] = true
	}
	if len(s.Linux.TimeOffsets) == 0 {
		return nil
	}
	if !newNamespace(s, specs.TimeNamespace) {
		return errors.New("linux.timeOffsets: it needs a new time namespace")
	}
	for clock, o := range s.Linux.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" || o.Nanosecs > 999_999_999 {
			return fmt.Errorf("linux.timeOffsets: %s: want monotonic or boottime, and less than a second of nanosecs", clock)
		}
	}
	return nil
}

func checkIDMaps(s *specs.Spec) error {
	l := s.Linux
	if len(l.UIDMappings)+len(l.GIDMappings) > 0 && !newNamespace(s, specs.UserNamespace) {
		return errors.New("linux.uidMappings and gidMappings need a new user namespace")
	}
	if newNamespace(s, specs.UserNamespace) && (len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0) {
		return errors.New("a new user namespace needs linux.uidMappings and linux.gidMappings")
	}
	if err := checkMap("linux.uidMappings", l.UIDMappings); err != nil {
		return err
	}
	return checkMap("linux.gidMappings", l.GIDMappings)
}

// checkMap checks an id map (user_namespaces(7)): at most 340 lines, none empty,
// none past 2^32 - 1.
func checkMap(what string, list []specs.LinuxIDMapping) error {
	if len(list) > 340 {
		return fmt.Errorf("%s: %d entries, the kernel takes 340", what, len(list))
	}
	for _, m := range list {
		if m.Size == 0 || uint64(m.ContainerID)+uint64(m.Size) > 1<<32 || uint64(m.HostID)+uint64(m.Size) > 1<<32 {
			return fmt.Errorf("%s: %d:%d, %d ids: out of range", what, m.ContainerID, m.HostID, m.Size)
		}
	}
	return nil
}

// openNamespace opens the namespace at file, and checks that it is of that type
// (NS_GET_NSTYPE, ioctl_nsfs(2)).
func openNamespace(kind specs.LinuxNamespaceType, file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%s namespace: %w", kind, err)
	}
	got, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || got != flagOf(kind) {
		_ = f.Close()
		return nil, fmt.Errorf("%s namespace: %s is not one", kind, file)
	}
	return f, nil
}

// newTimeNamespace makes one for the children of this thread, with offsets,
// which can be written until the first is in it (time_namespaces(7)).
func newTimeNamespace(offsets map[string]specs.LinuxTimeOffset) error {
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return fmt.Errorf("make a time namespace: %w", err)
	}
	file := fmt.Sprintf("/proc/%d/timens_offsets", unix.Gettid())
	for clock, o := range offsets {
		line := fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs)
		if err := os.WriteFile(file, []byte(line), 0); err != nil {
			return fmt.Errorf("set the offset of the %s clock: %w", clock, err)
		}
	}
	return nil
}
