package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/duplex-run/duplex/initramfs"
	"github.com/duplex-run/duplex/internal/vmmbench"
	"github.com/duplex-run/duplex/internal/workload"
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

// lab runs the driver in one lab; the records go to out.
func (o *options) lab(ctx context.Context, out io.Writer) error {
	d := driver{suites: o.suites, runs: o.runs, kicks: o.kicks}
	carry := []string{vmmbench.Firmware}
	var err error
	if d.kernel, d.initrd, err = o.files(ctx); err != nil {
		return err
	}
	if d.duplex, err = filepath.Abs(o.duplex); err != nil {
		return err
	}
	if d.qemu, err = exec.LookPath("qemu-system-x86_64"); err != nil {
		return err
	}
	for _, p := range virtiofsdPaths {
		if _, err := os.Stat(p); err == nil {
			d.virtiofsd = p
			carry = append(carry, p)
			break
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ticks, stop := vmmbench.Tick()
	defer stop()
	exit, err := lab.Run(ctx, lab.Options{
		Argv:  append([]string{self, inLab}, vmmbench.Arguments(d.flags())...),
		Carry: append(carry, d.kernel, d.initrd, d.duplex, d.qemu),
		Cwd:   "/", CarryOnly: true, Deterministic: !o.wall, Timeout: o.timeout,
		Memory: labMemory, CPUs: o.cpus, Interactive: true,
	}, workload.Stdio{In: ticks, Out: out, Err: os.Stderr}, nil)
	if err != nil {
		return err
	}
	if exit.Status() != 0 {
		return fmt.Errorf("the driver in the lab ended with status %s %s", strconv.Itoa(exit.Status()), exit.Message)
	}
	return nil
}

// labMemory holds the guest, the disk and the shared directory, in bytes.
const labMemory = 2 << 30

// files makes the kernel and the initramfs of the guests.
func (o *options) files(ctx context.Context) (vmlinux, initrd string, err error) {
	k, err := kernel.Find("")
	if err != nil {
		return "", "", err
	}
	if vmlinux, err = k.Vmlinux(ctx); err != nil {
		return "", "", err
	}
	agent, err := os.ReadFile(o.guest)
	if err != nil {
		return "", "", errors.Join(err, errors.New("make bench-vmm builds it"))
	}
	initrd, _, err = initramfs.Build(ctx, initramfs.Options{Kernel: k, Set: modules, Agent: agent})
	return vmlinux, initrd, err
}
