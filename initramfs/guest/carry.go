package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
)

// packDir is where the packs are mounted in the lab.
const packDir = "/run/duplex-lab"

// bindAbove is the size in bytes above which a carried file is bound into place
// instead of copied. A bound file can be written, but not renamed over.
const bindAbove = 1 << 20

// carried is what was put in place in the lab, and what has to come back.
type carried struct {
	back  []string            // Start.Lab.Return
	skip  []string            // Start.Lab.Skip
	root  *os.Root            // what was written into the root file system
	upper map[string]*os.Root // what was written into a carried directory
	made  map[string]stamp    // carried files as they were put in place
}

// stamp tells whether a file was written since.
type stamp struct {
	ino   uint64
	ctime syscall.Timespec
}

// mountLab makes and mounts what only the lab has.
func mountLab() error {
	if err := onlineCPUs(); err != nil {
		return err
	}
	err := mountAll([]mount{
		{source: "run", target: "/run", kind: "tmpfs", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=0755"},
		{source: "tmp", target: "/tmp", kind: "tmpfs", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=1777"},
		{source: "securityfs", target: "/sys/kernel/security", kind: "securityfs", flags: hard, optional: true},
	})
	if err != nil {
		return err
	}
	// Debian's switch for unprivileged user namespaces, where the kernel has it.
	err = os.WriteFile("/proc/sys/kernel/unprivileged_userns_clone", []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = os.Chmod("/dev/kvm", 0o666)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// onlineCPUs brings up the CPUs that the kernel was told to leave for later
// (maxcpus=1): on an emulated machine every step of the boot that patches the
// kernel's code waits for all CPUs, and they for their turn on the host.
func onlineCPUs() error {
	files, err := filepath.Glob("/sys/devices/system/cpu/cpu*/online")
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.WriteFile(f, []byte("1"), 0); err != nil {
			return err
		}
	}
	return nil
}

// place mounts the packs and puts their items where they belong.
func (c *carried) place(packs []agentproto.Pack) error {
	c.upper, c.made = make(map[string]*os.Root), make(map[string]stamp)
	for _, p := range c.back {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
	}
	for i, p := range packs {
		dir := filepath.Join(packDir, fmt.Sprint(i))
		dev, err := blockDevice("/sys/block", p.Device)
		if err != nil {
			return err
		}
		lower := filepath.Join(dir, "lower")
		if err := (mount{source: dev, target: lower, kind: "erofs", flags: unix.MS_RDONLY}).do(); err != nil {
			return err
		}
		for j, item := range p.Items {
			if err := c.placeItem(filepath.Join(lower, item.Name), filepath.Join(dir, fmt.Sprint(j)), item.Path); err != nil {
				return fmt.Errorf("carry %s: %w", item.Path, err)
			}
		}
	}
	return nil
}

func (c *carried) placeItem(from, rw, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if info.IsDir() {
		upper, err := overlay(from, rw, to)
		if err == nil {
			c.upper[to] = upper
		}
		return err
	}
	if info.Size() <= bindAbove {
		return c.copyFile(from, to, info)
	}
	return c.bindFile(from, rw, to)
}

func (c *carried) copyFile(from, to string, info fs.FileInfo) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if err := os.Chmod(to, info.Mode().Perm()); err != nil {
		return err
	}
	if err := os.Chtimes(to, info.ModTime(), info.ModTime()); err != nil {
		return err
	}
	return c.remember(to)
}

// bindFile binds a large file through an overlay of its own: nothing is copied
// unless it is written.
func (c *carried) bindFile(from, rw, to string) error {
	merged := filepath.Join(rw, "merged")
	if _, err := overlay(filepath.Dir(from), rw, merged); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o644) // a mount point
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := unix.Mount(filepath.Join(merged, filepath.Base(from)), to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return c.remember(to)
}

func (c *carried) remember(file string) error {
	s, err := stampOf(file)
	c.made[file] = s
	return err
}

func stampOf(file string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return stamp{}, err
	}
	return stamp{st.Ino, syscall.Timespec(st.Ctim)}, nil
}
