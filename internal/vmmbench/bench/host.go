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
	"time"

	"github.com/duplex-run/duplex/initramfs"
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

// firmware is what QEMU's microvm machine starts with.
const firmware = "/usr/share/qemu/bios-microvm.bin"

// lab runs the driver in one lab; the records go to out.
func (o *options) lab(ctx context.Context, out io.Writer) error {
	d := driver{suites: o.suites, runs: o.runs, kicks: o.kicks}
	carry := []string{firmware}
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
	ticks, stop := tick()
	defer stop()
	exit, err := lab.Run(ctx, lab.Options{
		Argv:  append([]string{self, inLab}, d.arguments()...),
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

// tick is an input with a byte a second. Each is an interrupt in the lab: QEMU's
// emulation of SVM may lose one, the next makes up for it, and a deterministic
// lab is sent none by itself (docs/lab.md). The driver reads and drops it.
func tick() (io.Reader, func()) {
	r, w := io.Pipe()
	t := time.NewTicker(time.Second)
	go func() {
		for range t.C {
			if _, err := w.Write([]byte("\n")); err != nil {
				return
			}
		}
	}()
	return r, func() { t.Stop(); _ = r.Close() }
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
