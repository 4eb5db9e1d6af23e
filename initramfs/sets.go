package initramfs

import (
	"errors"
	"slices"

	"github.com/duplex-run/duplex/kernel"
)

// Set names the modules that one kind of machine needs, without the modules
// they depend on in turn.
type Set struct {
	Name string
	// Required modules that are neither built into the kernel nor there as
	// modules are an error; Optional ones are left out.
	Required, Optional []string
	// Late modules are loaded only for workloads that need them, each with what
	// it depends on. Those that the kernel lacks are left out.
	Late []string
}

// MicroVM is for duplex's own monitor: virtio-mmio, the image on a block device,
// the agent's streams on vsock.
var MicroVM = Set{
	Name:     "microvm",
	Required: []string{"virtio_mmio", "virtio_blk", "vmw_vsock_virtio_transport", "erofs", "overlay"},
	Optional: []string{"virtio_rng"},
	Late:     []string{"virtiofs", "virtio_net", "virtio_balloon"},
}

// Lab is for the emulated machine: the agent's streams on virtio-serial, and all
// that duplex itself uses on a host.
var Lab = Set{
	Name:     "lab",
	Required: []string{"virtio_mmio", "virtio_blk", "virtio_console", "erofs", "overlay", "kvm_amd"},
	Optional: []string{"virtio_rng", "loop", "tun", "veth", "sch_ingress", "cls_matchall", "act_mirred",
		"bridge", "nf_tables", "nft_chain_nat", "nft_masq", "nft_ct"},
}

// Modules returns the modules of the set that k does not have built in, in the
// order to load them, without the late ones.
func (s Set) Modules(k *kernel.Kernel) ([]kernel.Module, error) {
	names := slices.Concat(s.Required, s.Optional)
	order, err := k.Modules(names...)
	var missing *kernel.MissingError
	if !errors.As(err, &missing) {
		return order, err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return slices.Contains(s.Optional, name) && slices.Contains(missing.Modules, name)
	})
	return k.Modules(names...)
}

// late returns the modules to load for the late module name; built in are none.
// ok is false when the kernel has it neither built in nor as a module.
func late(k *kernel.Kernel, name string) (order []kernel.Module, ok bool, err error) {
	order, err = k.Modules(name)
	var missing *kernel.MissingError
	if errors.As(err, &missing) {
		return nil, false, nil
	}
	return order, err == nil, err
}
