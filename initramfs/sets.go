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
	// Network is for a workload with a network. Loading takes time, so the agent
	// does it only then. All of it is optional.
	Network []string
}

// MicroVM is for duplex's own monitor: virtio-mmio, the image on a block device,
// the agent's streams on vsock.
var MicroVM = Set{
	Name:     "microvm",
	Required: []string{"virtio_mmio", "virtio_blk", "vmw_vsock_virtio_transport", "erofs", "overlay"},
	Optional: []string{"virtio_rng"},
	Network:  []string{"virtio_net"},
}

// Lab is for the emulated machine: the agent's streams on virtio-serial, and all
// that duplex itself uses on a host.
var Lab = Set{
	Name:     "lab",
	Required: []string{"virtio_mmio", "virtio_blk", "virtio_console", "erofs", "overlay", "kvm_amd"},
	Optional: []string{"virtio_rng", "loop", "tun"},
}

// Modules returns the modules of the set that k does not have built in, in the
// order to load them, without those for a network.
func (s Set) Modules(k *kernel.Kernel) ([]kernel.Module, error) {
	return modules(k, s.Required, s.Optional)
}

// NetworkModules returns what a workload with a network needs after Modules, in
// the order to load them.
func (s Set) NetworkModules(k *kernel.Kernel) ([]kernel.Module, error) {
	early, err := s.Modules(k)
	if err != nil {
		return nil, err
	}
	all, err := modules(k, s.Required, slices.Concat(s.Optional, s.Network))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(m kernel.Module) bool {
		return slices.ContainsFunc(early, func(e kernel.Module) bool { return e.Name == m.Name })
	}), nil
}

func modules(k *kernel.Kernel, required, optional []string) ([]kernel.Module, error) {
	names := slices.Concat(required, optional)
	order, err := k.Modules(names...)
	var missing *kernel.MissingError
	if !errors.As(err, &missing) {
		return order, err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return slices.Contains(optional, name) && slices.Contains(missing.Modules, name)
	})
	return k.Modules(names...)
}
