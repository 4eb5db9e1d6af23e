package oci

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/confine"
)

// LandlockAnnotation of a bundle, with the value "off", leaves Landlock out.
const LandlockAnnotation = "dev.duplex.landlock"

// checkLandlock checks the annotation.
func checkLandlock(s *specs.Spec) error {
	if v, ok := s.Annotations[LandlockAnnotation]; ok && v != "off" && v != "on" {
		return fmt.Errorf("annotations: %s is %q: want on or off", LandlockAnnotation, v)
	}
	return nil
}

// landlock is the domain of a container's first process; nil is none. Those that
// exec starts have none: of two domains, neither may look into the other's
// processes, and what exec is for is to look.
func landlock(s *specs.Spec, p *handshake.Process) *confine.Workload {
	if s.Annotations[LandlockAnnotation] == "off" || !newNamespace(s, specs.PIDNamespace) {
		return nil // other processes are there to be looked at
	}
	const admin, mknod = 1 << unix.CAP_SYS_ADMIN, 1 << unix.CAP_MKNOD
	w := &confine.Workload{
		Sockets: hostNetwork(s),
		Files:   p.Bounding&admin == 0 && denied(s.Linux.Seccomp, "mount", "move_mount", "fsmount", "pivot_root", "umount2"),
		NoNodes: p.Bounding&mknod == 0 || hasNamespace(s, specs.UserNamespace),
	}
	if !w.Sockets && !w.Files {
		return nil
	}
	w.Devices = devicePlaces(s)
	return w
}

// devicePlaces are /dev and the places outside it where the bundle puts a device,
// or a directory of the host's /dev.
func devicePlaces(s *specs.Spec) []string {
	out := []string{"/dev"}
	for _, d := range s.Linux.Devices {
		if !strings.HasPrefix(d.Path, "/dev/") {
			out = append(out, d.Path)
		}
	}
	for _, m := range s.Mounts {
		if strings.HasPrefix(m.Destination, "/dev/") || !strings.HasPrefix(m.Source, "/") {
			continue
		}
		var st unix.Stat_t
		device := m.Source == "/" || m.Source == "/dev" || strings.HasPrefix(m.Source, "/dev/")
		if !device && unix.Stat(m.Source, &st) == nil {
			kind := st.Mode & unix.S_IFMT
			device = kind == unix.S_IFCHR || kind == unix.S_IFBLK
		}
		if device {
			out = append(out, m.Destination)
		}
	}
	return out
}

// hostNetwork reports whether the container is in the network namespace of the
// runtime.
func hostNetwork(s *specs.Spec) bool {
	n, ok := namespace(s, specs.NetworkNamespace)
	if !ok || n.Path == "" {
		return !ok
	}
	theirs, err1 := os.Stat(n.Path)
	ours, err2 := os.Stat("/proc/self/ns/net")
	return err1 == nil && err2 == nil && os.SameFile(theirs, ours)
}

// denied reports whether the filter allows none of the calls, whatever their
// arguments.
func denied(p *specs.LinuxSeccomp, names ...string) bool {
	if p == nil || !denies(p.DefaultAction) {
		return false
	}
	return !slices.ContainsFunc(p.Syscalls, func(c specs.LinuxSyscall) bool {
		return !denies(c.Action) && slices.ContainsFunc(c.Names, func(n string) bool { return slices.Contains(names, n) })
	})
}

func denies(a specs.LinuxSeccompAction) bool {
	switch a {
	case specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActErrno, specs.ActTrap:
		return true
	}
	return false
}
