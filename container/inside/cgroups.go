package inside

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
)

// enterCgroups moves the calling thread into the v1 groups (into v2 it was
// cloned), makes those the roots it sees, and mounts them.
func enterCgroups(e *handshake.Execute) error {
	for i := range e.CgroupTasks {
		fd := handshake.TasksFD + i
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			return fmt.Errorf("join: %w", err)
		}
		_ = unix.Close(fd)
	}
	if !e.HostCgroup {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
	}
	sys, err := os.OpenFile("/sys/fs", unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = sys.Close() }()
	return mountCgroups(sys, e.CgroupMounts, e.CgroupUnified)
}

// limitPids puts the limit of processes in force. From here on this process may
// not get another thread.
func limitPids(e *handshake.Execute) error {
	if e.PidsLimit == "" {
		return nil
	}
	_, err := unix.Write(handshake.TasksFD+e.CgroupTasks, []byte(e.PidsLimit))
	return err
}

// mountCgroups shows the container's own groups, read-only, in sys/cgroup.
func mountCgroups(sys *os.File, v1 []string, unified bool) error {
	const attrs = noSuidExecDev | unix.MOUNT_ATTR_RDONLY
	at, err := openIn(sys, "cgroup")
	if errors.Is(err, unix.ENOENT) {
		return nil // a kernel without cgroups
	}
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	if len(v1) == 0 {
		if !unified {
			return nil
		}
		m, err := newMount("cgroup2", attrs, option{"source", "cgroup"})
		if errors.Is(err, unix.EPERM) {
			return nil // a user namespace that may not: the directory stays empty
		}
		if err != nil {
			return err
		}
		defer func() { _ = m.Close() }()
		return attach(m, at)
	}
	dir, err := newMount("tmpfs", noSuidExecDev, option{"source", "cgroup"}, option{"mode", "0755"})
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if err := attach(dir, at); err != nil {
		return err
	}
	for _, name := range v1 {
		m, err := mountIn(dir, name, "cgroup", attrs, v1Options(name)...)
		if err != nil {
			return fmt.Errorf("mount %s: %w", name, err)
		}
		_ = m.Close()
	}
	return setAttrs(dir, unix.MOUNT_ATTR_RDONLY, false)
}

// v1Options names the controllers of a v1 hierarchy.
func v1Options(name string) []option {
	out := []option{{"source", "cgroup"}}
	for c := range strings.SplitSeq(name, ",") {
		key, value, _ := strings.Cut(c, "=") // name=systemd
		out = append(out, option{key, value})
	}
	return out
}
