package cli

import (
	"context"
	"fmt"

	"github.com/duplex-run/duplex/initramfs"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/kernel"
	"github.com/duplex-run/duplex/oci"
)

// guest is what boots a microVM.
type guest struct {
	kernel string // vmlinux
	initrd string
}

// guest finds the kernel, fetching the distribution's when there is none yet,
// and builds the initramfs for it, unless the host has done so for the lab.
func (a *app) guest(ctx context.Context, o *runcli.Options) (guest, error) {
	if o.Initrd != "" {
		return guest{kernel: o.Kernel, initrd: o.Initrd}, nil
	}
	k, err := a.kernel(ctx, o.Kernel)
	if err != nil {
		return guest{}, err
	}
	return a.guestOf(ctx, k)
}

// ociGuest finds what a microVM of `duplex oci` boots. Nothing is fetched: an engine
// waits.
func (a *app) ociGuest(ctx context.Context, name string) (oci.Guest, error) {
	k, err := kernel.Find(name)
	if err != nil {
		return oci.Guest{}, err
	}
	g, err := a.guestOf(ctx, k)
	return oci.Guest{Kernel: g.kernel, Initrd: g.initrd, Version: cmdline.Version()}, err
}

// guestOf is what boots with the kernel k.
func (a *app) guestOf(ctx context.Context, k *kernel.Kernel) (guest, error) {
	vmlinux, err := k.Vmlinux(ctx)
	if err != nil {
		return guest{}, err
	}
	initrd, _, err := initramfs.Build(ctx, initramfs.Options{Kernel: k, Set: initramfs.MicroVM})
	return guest{kernel: vmlinux, initrd: initrd}, err
}

func (a *app) kernel(ctx context.Context, name string) (*kernel.Kernel, error) {
	if name == "" {
		have, err := kernel.List()
		if err != nil {
			return nil, err
		}
		if len(have) == 0 || have[0].Built {
			_, _ = fmt.Fprintln(a.Err, "duplex: no guest kernel yet: fetching the distribution's")
			p := a.Progress()
			defer p.Done()
			return kernel.Fetch(ctx, func(step string, f float64) { p.Update("kernel: "+step, f) })
		}
	}
	return kernel.Find(name)
}
