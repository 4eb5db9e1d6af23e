package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/initramfs"
	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/vmmbench"
	"github.com/duplex-run/duplex/internal/vmmbench/bootbench"
	"github.com/duplex-run/duplex/internal/vmmbench/host"
	"github.com/duplex-run/duplex/kernel"
	"github.com/duplex-run/duplex/lab"
)

// modules are what QEMU's guest needs of a modular kernel to run an image.
var modules = initramfs.Set{
	Name:     "bootbench",
	Required: []string{"virtio_mmio", "virtio_blk", "erofs", "overlay"},
}

// bench is what can be booted on this machine.
type bench struct {
	driver  driver // what the driver in the lab is told
	carry   []string
	cache   string
	kernels map[bootbench.Kernel]*kernel.Kernel
	timeout time.Duration
}

// prepare makes everything that is booted, and finds the programs.
func (o *options) prepare(ctx context.Context) (*bench, error) {
	b := &bench{kernels: map[bootbench.Kernel]*kernel.Kernel{}, timeout: o.Timeout, carry: []string{vmmbench.Firmware}}
	d := &b.driver
	var err error
	if d.duplex, err = filepath.Abs(o.Duplex); err != nil {
		return nil, err
	}
	if d.qemu, err = exec.LookPath("qemu-system-x86_64"); err != nil {
		return nil, err
	}
	if b.cache, err = hostdir.Cache(); err != nil {
		return nil, err
	}
	if d.bare, err = bareInitrd(ctx); err != nil {
		return nil, err
	}
	for flavour, name := range map[bootbench.Kernel]string{bootbench.Distribution: "", bootbench.Minimal: string(bootbench.Minimal)} {
		k, err := kernel.Find(name)
		if err != nil && flavour == bootbench.Minimal {
			fmt.Fprintln(os.Stderr, "bench: without the minimal kernel ('duplex kernel build --minimal' makes it):", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		b.kernels[flavour] = k
		if err := b.addKernel(ctx, o, flavour, k); err != nil {
			return nil, err
		}
	}
	img, err := image.Resolve(ctx, "builtin", image.Options{})
	if err != nil {
		return nil, err
	}
	d.image, d.disk = img.Digest, img.EROFS
	stored, err := filepath.Glob(filepath.Join(filepath.Dir(img.EROFS), "*"))
	b.carry = append(append(b.carry, stored...), d.duplex, d.qemu, d.bare)
	return b, err
}

// addKernel makes the initramfs archives for a kernel.
func (b *bench) addKernel(ctx context.Context, o *options, flavour bootbench.Kernel, k *kernel.Kernel) error {
	vmlinux, err := k.Vmlinux(ctx)
	if err != nil {
		return err
	}
	ours, _, err := initramfs.Build(ctx, initramfs.Options{Kernel: k, Set: initramfs.MicroVM})
	if err != nil {
		return err
	}
	init, err := os.ReadFile(o.Guest)
	if err != nil {
		return errors.Join(err, errors.New("make bench-boot builds it"))
	}
	theirs, _, err := initramfs.Build(ctx, initramfs.Options{Kernel: k, Set: modules, Agent: init})
	if err != nil {
		return err
	}
	files := []string{vmlinux, ours, theirs, k.Name}
	for i, p := range b.driver.files(flavour) {
		*p = files[i]
	}
	b.carry = append(b.carry, vmlinux, ours, theirs)
	return nil
}

// bareInitrd is an initramfs with one program; see bootbench.Bare.
func bareInitrd(ctx context.Context) (string, error) {
	path, err := hostdir.Cache("initramfs", "bootbench-bare-3.cpio")
	if err != nil {
		return "", err
	}
	return path, hostdir.Make(ctx, path, func(f *os.File) error {
		w := cpio.Newc.Writer(f)
		r := cpio.StaticRecord(bootbench.BareInit(), cpio.Info{Name: "init", Mode: cpio.S_IFREG | 0o755, NLink: 1})
		return errors.Join(w.WriteRecord(cpio.MakeReproducible(r)), cpio.WriteTrailer(w))
	})
}

// choose returns the cases that can be booted and whose name holds one of the
// words; all for none.
func (b *bench) choose(words string) []bootbench.Case {
	return slices.DeleteFunc(slices.Clone(bootbench.Cases), func(c bootbench.Case) bool {
		if _, ok := b.kernels[c.Kernel]; c.Kernel != "" && !ok {
			return true
		}
		return !slices.ContainsFunc(strings.Split(words, ","), func(w string) bool { return strings.Contains(c.Name(), w) })
	})
}

// measure runs the driver in a lab. The records are those it has when it fails.
func (b *bench) measure(ctx context.Context, mode string, cases []bootbench.Case, runs int) ([]bootbench.Record, error) {
	if len(cases) == 0 {
		return nil, errors.New("no case is left to boot")
	}
	d := b.driver
	d.runs = runs
	carry := slices.Clone(b.carry)
	for _, c := range cases {
		d.cases += "," + c.Name()
		if c.What == bootbench.Bundle { // which finds its kernel by itself, among all
			for _, k := range b.kernels {
				carry = append(carry, filepath.Dir(k.Image))
			}
		}
	}
	d.cases = d.cases[1:]
	return host.Driver(ctx, vmmbench.Arguments(d.flags()), lab.Options{
		Env: []string{"DUPLEX_CACHE=" + b.cache}, Carry: carry, Deterministic: mode == deterministic, Timeout: b.timeout,
	}, progress)
}
