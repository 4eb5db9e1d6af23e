package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/duplex-run/duplex/initramfs"
	"github.com/duplex-run/duplex/internal/vmmbench"
	"github.com/duplex-run/duplex/internal/vmmbench/host"
	"github.com/duplex-run/duplex/kernel"
	"github.com/duplex-run/duplex/lab"
)

// modules are what the guest's kernel needs for all suites.
var modules = initramfs.Set{
	Name:     "vmmbench",
	Required: []string{"virtio_mmio", "virtio_blk", "virtio_net", "virtiofs"},
}

// Where Debian has virtiofsd: in qemu-system-common up to Debian 12, in a
// package of its own since.
var virtiofsdPaths = []string{"/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"}

// lab runs the driver in one lab.
func (o *options) lab(ctx context.Context) ([]vmmbench.Record, error) {
	d := driver{suites: o.suites, runs: o.Runs, kicks: o.kicks}
	carry := []string{vmmbench.Firmware}
	var err error
	if d.kernel, d.initrd, err = o.files(ctx); err != nil {
		return nil, err
	}
	if d.duplex, err = filepath.Abs(o.Duplex); err != nil {
		return nil, err
	}
	if d.qemu, err = exec.LookPath("qemu-system-x86_64"); err != nil {
		return nil, err
	}
	for _, p := range virtiofsdPaths {
		if _, err := os.Stat(p); err == nil {
			d.virtiofsd = p
			carry = append(carry, p)
			break
		}
	}
	return host.Driver(ctx, vmmbench.Arguments(d.flags()), lab.Options{
		Carry:         append(carry, d.kernel, d.initrd, d.duplex, d.qemu),
		Deterministic: !o.wall, Timeout: o.Timeout, CPUs: o.cpus,
	}, progress)
}

// files makes the kernel and the initramfs of the guests.
func (o *options) files(ctx context.Context) (vmlinux, initrd string, err error) {
	k, err := kernel.Find("")
	if err != nil {
		return "", "", err
	}
	if vmlinux, err = k.Vmlinux(ctx); err != nil {
		return "", "", err
	}
	agent, err := os.ReadFile(o.Guest)
	if err != nil {
		return "", "", errors.Join(err, errors.New("make bench-vmm builds it"))
	}
	initrd, _, err = initramfs.Build(ctx, initramfs.Options{Kernel: k, Set: modules, Agent: agent})
	return vmlinux, initrd, err
}
