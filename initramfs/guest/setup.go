package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is one mount(2); a failure of an optional one is ignored.
type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
	optional             bool
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil && !m.optional {
		return fmt.Errorf("mount %s: %w", m.target, err)
	}
	err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data)
	if err == nil || m.optional || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
}

func mountAll(list []mount) error {
	for _, m := range list {
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}

const hard = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mountKernelFS mounts what the agent itself needs; they move with it into the
// root file system.
func mountKernelFS() error {
	return mountAll([]mount{
		{source: "devtmpfs", target: "/dev", kind: "devtmpfs", flags: unix.MS_NOSUID, data: "mode=0755"},
		{source: "proc", target: "/proc", kind: "proc", flags: hard},
		{source: "sysfs", target: "/sys", kind: "sysfs", flags: hard},
	})
}

// mountRest mounts what a workload expects below the root file system's /dev
// and /sys.
func mountRest() error {
	err := mountAll([]mount{
		{source: "devpts", target: "/dev/pts", kind: "devpts", flags: unix.MS_NOSUID | unix.MS_NOEXEC, data: "gid=5,mode=0620,ptmxmode=0666"},
		{source: "shm", target: "/dev/shm", kind: "tmpfs", flags: hard, data: "mode=1777"},
		{source: "mqueue", target: "/dev/mqueue", kind: "mqueue", flags: hard, optional: true},
		{source: "cgroup2", target: "/sys/fs/cgroup", kind: "cgroup2", flags: hard, optional: true},
	})
	if err != nil {
		return err
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
		"stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, "/dev/"+name); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// parameter returns the value of key on a kernel command line.
func parameter(line, key string) string {
	for word := range strings.FieldsSeq(line) {
		if k, v, ok := strings.Cut(word, "="); ok && k == key {
			return v
		}
	}
	return ""
}

// modulesDir is where the initramfs has modules, and lists of them.
const modulesDir = "/modules"

// loadModules loads the modules named in dir/order, one name a line, in that
// order. A directory without an order has no modules to load.
func loadModules(dir string) error {
	order, err := os.ReadFile(filepath.Join(dir, "order"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load modules: %w", err)
	}
	return loadList(dir, order)
}

func loadList(dir string, order []byte) error {
	for name := range strings.FieldsSeq(string(order)) {
		step("load " + name)
		if err := loadModule(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

// loadModule loads one module, which the host has prepared: see package initramfs.
func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) { // built in, or loaded before
		return nil
	}
	return err
}

// loopbackUp brings the loopback interface up.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}
